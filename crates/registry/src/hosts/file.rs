//! `hosts.toml`: which hosts stand for a registry.
//!
//! Read as a table with positions, so that a mistake is told with its line and the order of hosts is the order of the file.

use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use types::{Error, Result};

use super::{Capability, Entry};
use crate::repository;
use crate::settings::Scheme;

type Value<'a> = Spanned<DeValue<'a>>;

/// The hosts of the file `path` with the content `text`: mirrors in the order of the file, the server last.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Entry>> {
    let file = File { text, path };
    let table = DeTable::parse(text).map_err(|e| file.error(e.span().map_or(0, |s| s.start), e.message()))?;
    let table = table.get_ref();
    let mut entries = Vec::new();
    if let Some((_, hosts)) = table.get_key_value("host") {
        let hosts_table = hosts.get_ref().as_table().ok_or_else(|| file.wrong("host", hosts, "a table"))?;
        let mut hosts: Vec<_> = hosts_table.iter().collect();
        hosts.sort_by_key(|(key, _)| key.span().start);
        for (url, host) in hosts {
            let name = format!("host.{:?}", url.get_ref());
            let keys = host.get_ref().as_table().ok_or_else(|| file.wrong(&name, host, "a table"))?;
            let reader = Reader { file: &file, prefix: format!("{name}.") };
            let mut entry = reader.entry(keys, &[])?;
            entry.address = Some(reader.address(&name, url.span().start, url.get_ref(), keys)?);
            entries.push(entry);
        }
    }
    let reader = Reader { file: &file, prefix: String::new() };
    let mut last = reader.entry(table, &["server", "host"])?;
    if let Some(server) = table.get("server") {
        let url = server.get_ref().as_str().ok_or_else(|| file.wrong("server", server, "a string"))?;
        if !url.is_empty() {
            last.address = Some(reader.address("server", server.span().start, url, table)?);
        }
    }
    entries.push(last);
    Ok(entries)
}

struct File<'a> {
    text: &'a str,
    path: &'a Path,
}

impl File<'_> {
    fn error(&self, at: usize, why: &str) -> Error {
        let line = self.text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1;
        Error::invalid(format!("{}:{line}: {}", self.path.display(), why.trim_end()))
    }

    fn wrong(&self, key: &str, value: &Value<'_>, wanted: &str) -> Error {
        let found = value.get_ref().type_str();
        self.error(value.span().start, &format!("{key} must be {wanted}, not a value of type {found}"))
    }

    fn strings<'v>(&self, key: &str, value: &'v Value<'_>) -> Result<Vec<&'v str>> {
        let wanted = "a string or a list of strings";
        match value.get_ref() {
            DeValue::String(text) => Ok(vec![text]),
            DeValue::Array(list) => list
                .iter()
                .map(|item| item.get_ref().as_str().ok_or_else(|| self.wrong(key, item, wanted)))
                .collect(),
            _ => Err(self.wrong(key, value, wanted)),
        }
    }

    /// A path as the file means it: relative to its own directory.
    fn absolute(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).join(path)
    }
}

/// Reads the keys of one host.
struct Reader<'a> {
    file: &'a File<'a>,
    prefix: String,
}

impl Reader<'_> {
    fn entry(&self, table: &DeTable<'_>, others: &[&str]) -> Result<Entry> {
        let mut entry = Entry::default();
        for (key, value) in table {
            let name = format!("{}{}", self.prefix, key.get_ref());
            match key.get_ref().as_ref() {
                "capabilities" => entry.capabilities = self.capabilities(&name, value)?,
                "ca" => {
                    let paths = self.file.strings(&name, value)?;
                    entry.tls.ca = paths.into_iter().map(|p| self.file.absolute(p)).collect();
                }
                "client" => entry.tls.client = self.client(&name, value)?,
                "skip_verify" => entry.tls.skip_verify = Some(self.boolean(&name, value)?),
                "override_path" => drop(self.boolean(&name, value)?),
                "header" => entry.headers = self.headers(&name, value)?,
                "dial_timeout" => entry.dial_timeout = self.duration(&name, value)?,
                known if others.contains(&known) => {}
                // As upstream: a file for a newer version is no mistake. It may be a slip of the pen, so it is told.
                _ => tracing::warn!(
                    file = %self.file.path.display(),
                    key = %name,
                    "unknown key in a registry's file is ignored"
                ),
            }
        }
        Ok(entry)
    }

    fn address(
        &self,
        name: &str,
        at: usize,
        url: &str,
        keys: &DeTable<'_>,
    ) -> Result<(Scheme, String, String)> {
        let overridden = match keys.get("override_path") {
            Some(value) => self.boolean(&format!("{}override_path", self.prefix), value)?,
            None => false,
        };
        address(url, overridden).map_err(|why| self.file.error(at, &format!("{name}: {why}")))
    }

    fn boolean(&self, name: &str, value: &Value<'_>) -> Result<bool> {
        value.get_ref().as_bool().ok_or_else(|| self.file.wrong(name, value, "true or false"))
    }

    fn capabilities(&self, name: &str, value: &Value<'_>) -> Result<Vec<Capability>> {
        let mut found = Vec::new();
        let list = value.get_ref().as_array().ok_or_else(|| self.file.wrong(name, value, "a list"))?;
        for item in list {
            let text = item.get_ref().as_str().ok_or_else(|| self.file.wrong(name, item, "strings"))?;
            let known = Capability::ALL.into_iter().find(|c| text.eq_ignore_ascii_case(c.as_str()));
            found.push(known.ok_or_else(|| {
                let why = format!("{name}: unknown capability {text:?} (pull, resolve, push, referrers)");
                self.file.error(item.span().start, &why)
            })?);
        }
        Ok(found)
    }

    /// A file, a list of files, or a list of pairs of files.
    fn client(&self, name: &str, value: &Value<'_>) -> Result<Vec<(PathBuf, Option<PathBuf>)>> {
        let wanted = "a file, a list of files or a list of pairs of files";
        let list = match value.get_ref() {
            DeValue::String(path) => return Ok(vec![(self.file.absolute(path), None)]),
            DeValue::Array(list) => list,
            _ => return Err(self.file.wrong(name, value, wanted)),
        };
        list.iter()
            .map(|item| match item.get_ref() {
                DeValue::String(path) => Ok((self.file.absolute(path), None)),
                DeValue::Array(_) => match self.file.strings(name, item)?.as_slice() {
                    [certificate, key] => {
                        let key = (!key.is_empty()).then(|| self.file.absolute(key));
                        Ok((self.file.absolute(certificate), key))
                    }
                    other => {
                        let why = format!("{name}: a pair has two files, not {}", other.len());
                        Err(self.file.error(item.span().start, &why))
                    }
                },
                _ => Err(self.file.wrong(name, item, wanted)),
            })
            .collect()
    }

    fn headers(&self, name: &str, value: &Value<'_>) -> Result<HeaderMap> {
        let table = value.get_ref().as_table().ok_or_else(|| self.file.wrong(name, value, "a table"))?;
        let mut headers = HeaderMap::new();
        for (key, value) in table {
            let full = format!("{name}.{}", key.get_ref());
            let bad = |at: usize, why: &str| self.file.error(at, &format!("{full}: {why}"));
            let header = HeaderName::from_bytes(key.get_ref().as_bytes())
                .map_err(|_| bad(key.span().start, "invalid header name"))?;
            for text in self.file.strings(&full, value)? {
                let mut text = HeaderValue::from_str(text)
                    .map_err(|_| bad(value.span().start, "invalid header value"))?;
                text.set_sensitive(true);
                headers.append(header.clone(), text);
            }
        }
        Ok(headers)
    }

    fn duration(&self, name: &str, value: &Value<'_>) -> Result<Option<std::time::Duration>> {
        let text = value.get_ref().as_str().ok_or_else(|| self.file.wrong(name, value, "a string"))?;
        if text.is_empty() {
            return Ok(None);
        }
        types::duration::parse(text)
            .map(Some)
            .ok_or_else(|| self.file.error(value.span().start, &format!("{name}: invalid duration {text:?}")))
    }
}

/// Scheme, name and API root of an URL in the file.
fn address(url: &str, overridden: bool) -> Result<(Scheme, String, String), String> {
    let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let (scheme, rest) = match url.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        _ => return Err(format!("{url:?} is neither http nor https")),
    };
    let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !repository::is_host(name) {
        return Err(format!("invalid host {name:?}"));
    }
    if path.contains(['?', '#', '%']) || path.split('/').any(|part| part == "..") {
        return Err(format!("invalid path {path:?}"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let mut path: String = parts.iter().flat_map(|part| ["/", part]).collect();
    if !overridden && parts.last() != Some(&"v2") {
        path.push_str("/v2");
    }
    Ok((scheme, name.to_owned(), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Entry>> {
        parse(text, Path::new("/etc/r/hosts.toml"))
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
server = "up.example:5000"
capabilities = ["pull", "PUSH"]
[host."https://m.example/api"]
  capabilities = ["pull", "referrers"]
  ca = ["a.crt", "/b.crt"]
  client = [["c.cert", "c.key"], "both.pem"]
  skip_verify = false
  override_path = true
  dial_timeout = "1s"
  [host."https://m.example/api".header]
    x-one = "1"
    x-two = ["a", "b"]
"#;
        let entries = read(text).unwrap();
        let mirror = &entries[0];
        assert_eq!(mirror.address, Some((Scheme::Https, "m.example".into(), "/api".into())));
        assert_eq!(mirror.capabilities, [Capability::Pull, Capability::Referrers]);
        assert_eq!(mirror.tls.ca, [Path::new("/etc/r/a.crt"), Path::new("/b.crt")]);
        let pair = ("/etc/r/c.cert".into(), Some("/etc/r/c.key".into()));
        assert_eq!(mirror.tls.client, [pair, ("/etc/r/both.pem".into(), None)]);
        assert_eq!(mirror.tls.skip_verify, Some(false));
        assert_eq!(mirror.dial_timeout, Some(std::time::Duration::from_secs(1)));
        assert_eq!(mirror.headers.get_all("x-two").iter().count(), 2);
        assert_eq!(entries[1].address, Some((Scheme::Https, "up.example:5000".into(), "/v2".into())));
        assert_eq!(entries[1].capabilities, [Capability::Pull, Capability::Push]);
    }

    #[test]
    fn a_mistake_is_told_with_file_line_and_key() {
        for (text, wanted) in [
            ("\nserver = 1", "/etc/r/hosts.toml:2: server must be a string"),
            ("server = ", "/etc/r/hosts.toml:1: "),
            ("[host.\"h\"]\n capabilities = [\"fly\"]", ":2: host.\"h\".capabilities: unknown capability"),
            ("[host.\"h\"]\n\n skip_verify = \"yes\"", ":3: host.\"h\".skip_verify must be true or false"),
            ("[host.\"h\"]\nclient = [[\"a\"]]", ":2: host.\"h\".client: a pair has two files"),
            ("[host.\"ftp://h\"]", ":1: host.\"ftp://h\": \"ftp://h\" is neither http nor https"),
            ("dial_timeout = \"soon\"", ":1: dial_timeout: invalid duration"),
            ("[header]\n\"a b\" = \"1\"", ":2: header.a b: invalid header name"),
            ("[host.\"https://h/../x\"]", "invalid path"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}\n{wanted}");
        }
    }

    #[test]
    fn the_api_root_is_added_unless_the_path_is_overridden() {
        let path = |url, overridden| address(url, overridden).unwrap().2;
        assert_eq!(path("https://h", false), "/v2");
        assert_eq!(path("https://h/", true), "");
        assert_eq!(path("https://h/a//b/", false), "/a/b/v2");
        assert_eq!(path("https://h/v2/", false), "/v2");
        assert_eq!(path("https://h/v2/x", true), "/v2/x");
    }
}
