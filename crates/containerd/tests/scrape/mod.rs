//! A page of metrics, fetched and read.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Labels and their values, by name.
pub type Labels = BTreeMap<String, String>;

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page {
    /// The types of families by name.
    pub types: BTreeMap<String, String>,
    /// Every number.
    pub samples: BTreeMap<(String, Labels), f64>,
}

/// What a server answers to a GET: status line and headers, and the body.
pub async fn get<S>(mut stream: S, path: &str) -> (String, String)
where
    S: AsyncReadExt + AsyncWriteExt + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    (head.to_owned(), if chunked { whole(body) } else { body.to_owned() })
}

/// Chunks put together: each has its length in front.
fn whole(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = chunks.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        body.push_str(&rest[..length]);
        chunks = rest[length..].trim_start_matches("\r\n");
    }
    body
}

/// The page at an address.
pub async fn scrape(address: &str) -> Page {
    let (head, body) = get(TcpStream::connect(address).await.unwrap(), "/v1/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    Page::read(&body)
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                let again = page.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(again, None, "{name} stands twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let again = page.samples.insert(labelled(series), value.parse().unwrap());
                assert_eq!(again, None, "{series} stands twice");
            }
        }
        page
    }

    /// The families whose names begin with one of `prefixes`, and their types.
    pub fn families(&self, prefixes: &[&str]) -> BTreeMap<&str, &str> {
        let wanted = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        self.types.iter().map(|(name, kind)| (&**name, &**kind)).filter(|(name, _)| wanted(name)).collect()
    }

    /// The names of the labels that the samples of a name have, each set once.
    pub fn label_sets(&self, name: &str) -> BTreeSet<Vec<&str>> {
        let of_name = self.samples.keys().filter(|(found, _)| found == name);
        of_name.map(|(_, labels)| labels.keys().map(String::as_str).collect()).collect()
    }

    /// A number.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }
}

/// `name{key="value",…}`, where a value may have anything in it.
fn labelled(series: &str) -> (String, Labels) {
    let Some((name, rest)) = series.split_once('{') else { return (series.to_owned(), Labels::new()) };
    let mut labels = Labels::new();
    let mut rest = rest.strip_suffix('}').unwrap();
    while let Some((key, value)) = rest.split_once("=\"") {
        let (mut text, mut chars) = (String::new(), value.char_indices());
        let end = loop {
            match chars.next().unwrap() {
                (_, '\\') => text.push(chars.next().unwrap().1),
                (place, '"') => break place,
                (_, c) => text.push(c),
            }
        };
        labels.insert(key.trim_start_matches(',').to_owned(), text);
        rest = &value[end + 1..];
    }
    (name.to_owned(), labels)
}
