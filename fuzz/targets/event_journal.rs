#![no_main]
//! The journal of a container's events, as a shim that was killed may have left it.

use api::journal::{HEADER, recover};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(recovered) = recover(data) else { return };
    assert!(recovered.head >= HEADER && recovered.end >= recovered.head);
    let length: u64 = recovered.records.iter().map(|record| record.length as u64).sum();
    assert_eq!(recovered.end - recovered.head, length);
    // What was whole stays so when what was torn is cut off.
    if let Some(whole) = usize::try_from(recovered.end).ok().and_then(|end| data.get(..end)) {
        let again = recover(whole).unwrap();
        assert_eq!((again.records, again.torn), (recovered.records, 0));
    }
});
