use proptest::prelude::*;
use proptest::sample;
use serde_json::json;

use super::*;

const EARLY: &str = r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.1.2.3/24","gateway":"10.1.2.1","routes":[{"dst":"0.0.0.0/0"}]},
    "ip6":{"ip":"fd00::3/64","routes":[{"dst":"::/0","gw":"fd00::1"}]},"dns":{"nameservers":["10.1.2.1"]}}"#;
const CURRENT: &str = r#"{"cniVersion":"1.1.0","interfaces":[{"name":"cni0","mac":"aa:bb:cc:dd:ee:ff"},
    {"name":"eth0","mac":"aa:bb:cc:dd:ee:00","mtu":1400,"sandbox":"/proc/1/ns/net","pciID":"0000:00:02.1"}],
    "ips":[{"interface":1,"address":"10.1.2.3/24","gateway":"10.1.2.1"},{"address":"10.1.2.4/24"},
    {"address":"fd00::3/64","gateway":""}],
    "routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.1","mtu":1400,"table":7,"scope":0},{"dst":"fd00::/8"}],"dns":{}}"#;

fn result(text: &str) -> AddResult {
    AddResult::parse(text.as_bytes(), "").unwrap()
}

fn json_of(result: &AddResult) -> Value {
    Value::Object(result.to_json().unwrap())
}

#[test]
fn what_is_read_is_written() {
    let early: Value = serde_json::from_str(EARLY).unwrap();
    assert_eq!(json_of(&result(EARLY)), early);
    let mut current: Value = serde_json::from_str(CURRENT).unwrap();
    current.as_object_mut().unwrap().remove("dns");
    current["ips"][2].as_object_mut().unwrap().remove("gateway");
    assert_eq!(json_of(&result(CURRENT)), current);
}

#[test]
fn early_results_become_current_ones() {
    let wanted = json!({
        "cniVersion": "1.0.0",
        "ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1"}, {"address": "fd00::3/64"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::1"}],
        "dns": {"nameservers": ["10.1.2.1"]},
    });
    assert_eq!(json_of(&result(EARLY).to("1.0.0").unwrap()), wanted);
}

#[test]
fn current_results_become_older_ones_as_far_as_those_can_say_it() {
    let middle = json!({
        "cniVersion": "0.4.0",
        "interfaces": [{"name": "cni0", "mac": "aa:bb:cc:dd:ee:ff"},
            {"name": "eth0", "mac": "aa:bb:cc:dd:ee:00", "sandbox": "/proc/1/ns/net"}],
        "ips": [{"version": "4", "interface": 1, "address": "10.1.2.3/24", "gateway": "10.1.2.1"},
            {"version": "4", "address": "10.1.2.4/24"}, {"version": "6", "address": "fd00::3/64"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.1", "mtu": 1400, "table": 7, "scope": 0}, {"dst": "fd00::/8"}],
        "dns": {},
    });
    assert_eq!(json_of(&result(CURRENT).to("0.4.0").unwrap()), middle);
    let early = json!({
        "cniVersion": "0.1.0",
        "ip4": {"ip": "10.1.2.3/24", "gateway": "10.1.2.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}]},
        "ip6": {"ip": "fd00::3/64", "routes": [{"dst": "fd00::/8"}]},
        "dns": {},
    });
    assert_eq!(json_of(&result(CURRENT).to("").unwrap()), early);
    let none = result(r#"{"cniVersion":"1.0.0"}"#).to("0.2.0").unwrap_err();
    assert_eq!(none.to_string(), "cannot convert: no valid IP addresses");
}

#[test]
fn every_version_becomes_every_other() {
    for from in crate::version::SUPPORTED {
        let from = result(CURRENT).to(from).unwrap();
        for to in crate::version::SUPPORTED {
            let converted = from.to(to).unwrap();
            assert_eq!(converted.version(), to);
            let value = converted.to_json().unwrap();
            assert_eq!(AddResult::kept(value).unwrap(), converted);
        }
    }
    let error = result(CURRENT).to("2.0.0").unwrap_err().to_string();
    assert_eq!(error, "no converter for CNI result version 1.1.0 to 2.0.0");
}

#[test]
fn without_a_version_it_is_the_configurations() {
    let parse = |text: &str, configured| AddResult::parse(text.as_bytes(), configured).map(|r| r.version);
    assert_eq!(parse("{}", "0.4.0").unwrap(), "0.4.0");
    assert_eq!(parse("null", "1.0.0").unwrap(), "1.0.0");
    assert_eq!(parse(r#"{"cniVersion":""}"#, "").unwrap(), "0.1.0");
    assert_eq!(parse(r#"{"cniVersion":"0.3.1"}"#, "1.0.0").unwrap(), "0.3.1");
    assert_eq!(
        parse(r#"{"cniVersion":"9.9.9"}"#, "1.0.0").unwrap_err().to_string(),
        "unsupported CNI result version \"9.9.9\""
    );
}

#[test]
fn garbage_is_refused() {
    for bad in [
        "",
        "no json",
        "[]",
        "7",
        r#"{"cniVersion":7}"#,
        r#"{"ips":[{"address":"10.0.0.1"}]}"#,
        r#"{"ips":[{"address":"10.0.0.1/33"}]}"#,
        r#"{"ips":[{"address":"10.0.0.1/+8"}]}"#,
        r#"{"ips":[{"address":"10.0.0.01/8"}]}"#,
        r#"{"ips":[{}]}"#,
        r#"{"ips":[null]}"#,
        r#"{"interfaces":[null]}"#,
        r#"{"ips":[{"address":"10.0.0.1/8","gateway":"x"}]}"#,
        r#"{"interfaces":[{"name":"eth0\nroot:x"}]}"#,
        r#"{"dns":{"nameservers":["1.1.1.1\noptions x"]}}"#,
        r#"{"routes":[{"gw":"10.0.0.1"}]}"#,
    ] {
        assert!(AddResult::parse(bad.as_bytes(), "1.0.0").is_err(), "{bad}");
    }
    let deep = "[".repeat(100_000);
    assert!(AddResult::parse(format!("{{\"ips\":{deep}").as_bytes(), "1.0.0").is_err());
}

#[test]
fn what_is_null_is_nothing() {
    let text = r#"{"interfaces":null,"ips":null,"routes":null,"dns":null}"#;
    assert_eq!(AddResult::parse(text.as_bytes(), "1.0.0").unwrap().current(), Current::default());
}

#[test]
fn addresses_of_version_4_inside_of_6_are_of_version_4() {
    let cidr: Cidr = "::ffff:10.0.0.1/120".parse().unwrap();
    assert_eq!(cidr.to_string(), "10.0.0.1/24");
    assert!(cidr.is_v4());
}

/// Results of any version that are right more often than not.
fn texts() -> impl Strategy<Value = String> {
    let cidr = || {
        sample::select(vec!["10.0.0.1/8", "fd00::1/64", "::ffff:1.2.3.4/100", "::ffff:1.2.3.4/9", "1.2.3.4"])
    };
    let version = sample::select(vec!["", "0.1.0", "0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "7.0.0"]);
    let dns = sample::select(vec!["null", "{}", r#"{"domain":"d"}"#, r#"{"search":["a","b"]}"#, "[]"]);
    (version, cidr(), cidr(), dns, "[ -~\\n]{0,4}").prop_map(|(version, ip, dst, dns, name)| {
        let name = Value::String(name);
        format!(
            r#"{{"cniVersion":"{version}","ip4":{{"ip":"{ip}","routes":[{{"dst":"{dst}"}}]}},"dns":{dns},
            "ips":[{{"version":"4","interface":0,"address":"{ip}","gateway":""}}],
            "interfaces":[{{"name":{name},"mtu":0}}],"routes":[{{"dst":"{dst}","gw":"::1","mtu":5}}]}}"#
        )
    })
}

proptest! {
    #[test]
    fn whatever_is_read_can_be_kept_and_converted(text in texts()) {
        if let Ok(result) = AddResult::parse(text.as_bytes(), "1.0.0") {
            prop_assert_eq!(AddResult::kept(result.to_json().unwrap()).unwrap(), result.clone());
            prop_assert!(result.current().interfaces.iter().all(|i| !i.name.contains(char::is_control)));
            for version in crate::version::SUPPORTED {
                let Ok(converted) = result.to(version) else { continue };
                prop_assert_eq!(converted.version(), version);
                prop_assert_eq!(AddResult::kept(converted.to_json().unwrap()).unwrap(), converted);
            }
        }
    }
}
