#![no_main]
//! Networks in files: lists, and single plugins.

use cni::Network;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for network in [Network::parse(data), Network::parse_single(data)].into_iter().flatten() {
        cni::names::network(network.name()).expect("a network has a name");
        for plugin in network.plugins() {
            cni::names::plugin(plugin.kind()).expect("a plugin is a file");
        }
        let again = Network::parse(network.source()).expect("the source is the network");
        assert_eq!(again, network);
    }
});
