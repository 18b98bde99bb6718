//! How the host resolves names, for a container that should do as it does.

use std::fs::File;
use std::io::Read;

use types::{Error, Result, ResultExt};

use crate::result::Dns;

/// More than any such file has.
const LARGEST: u64 = 1 << 20;

pub(super) fn read(path: &str) -> Result<Dns> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text));
    read.context(|| format!("read {path}"))?;
    if text.len() as u64 > LARGEST {
        return Err(Error::invalid(format!("{path} is larger than {LARGEST} bytes")));
    }
    Ok(parse(&text))
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(keyword), Some(first)) = (words.next(), words.next()) else { continue };
        match keyword.as_str() {
            "nameserver" => dns.nameservers.push(first),
            "domain" => dns.domain = first,
            "search" => dns.search.extend([first].into_iter().chain(words)),
            "options" => dns.options.extend([first].into_iter().chain(words)),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolvers_file_is_read_as_the_resolver_does() {
        let dns = parse(
            "# a\n; b\nnameserver 1.1.1.1\n nameserver\t::1 x\ndomain d\nsearch a b\noptions ndots:5 edns0\nother x\nsearch\n",
        );
        assert_eq!(dns.nameservers, ["1.1.1.1", "::1"]);
        assert_eq!((dns.domain.as_str(), dns.search.len(), dns.options.len()), ("d", 2, 2));
    }
}
