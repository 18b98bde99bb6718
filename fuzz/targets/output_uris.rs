#![no_main]
//! Where a client wants output to go, and the lines that stand for what was lost.

use libfuzzer_sys::fuzz_target;
use types::output::{Output, lost_mark, parse_lost_mark, size};

fuzz_target!(|text: &str| {
    if let Ok(Output::Program(program)) = Output::parse(text) {
        assert!(program.path.is_absolute() && program.args.len() % 2 == 0);
    }
    if let Ok(Output::File(file)) = Output::parse(text) {
        assert!(file.path.is_absolute());
        assert!(file.rotation.is_none_or(|rotation| rotation.max_size > 0 && rotation.max_files > 0));
    }
    if let Some(bytes) = parse_lost_mark(text) {
        assert_eq!(parse_lost_mark(&lost_mark(bytes)), Some(bytes));
    }
    let _ = size(text);
});
