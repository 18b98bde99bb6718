#![no_main]
//! Forged image archives.

use std::sync::Arc;

use content::Store;
use content::local::LocalStore;
use images::import::{DigestNames, Naming, Options, import};
use images::walk::Wanted;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = containerd_fuzz::seal(data);
    let top = tempfile::tempdir().expect("a temporary directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    runtime.block_on(async {
        let store = LocalStore::open(top.path()).expect("a store") as Arc<dyn Store>;
        let options = Options { wanted: Wanted::All, compress: false, discard_layers: false };
        let names =
            Naming { prefix: "x".into(), only_prefixed: false, digests: DigestNames::All, index: None };
        let archive = Box::new(std::io::Cursor::new(bytes));
        if import(archive, &store, &options, &names, &images::Silent).await.is_err() {
            let mut left = 0;
            let mut count = |_| {
                left += 1;
                Ok(())
            };
            store.walk(&types::filters::Filters::default(), &mut count).await.expect("a list");
            assert_eq!(left, 0, "blobs are left");
            assert!(store.list_statuses(&[]).await.expect("a list").is_empty(), "ingests are left");
        }
    });
});
