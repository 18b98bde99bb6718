//! The environment's variables about traces (`OTEL_*`), as upstream's plugin and Go's SDK read them.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use types::{Error, Result};

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A POST of protobuf over HTTP/1.1.
    Http,
    /// A call over HTTP/2.
    Grpc,
}

/// Which calls are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// What a caller decided holds for its calls.
    pub parent: bool,
    /// The part of the other calls that is recorded, from 0 to 1.
    pub ratio: f64,
}

/// Where spans are sent, and which.
#[derive(Clone, PartialEq)]
pub struct Settings {
    pub protocol: Protocol,
    pub endpoint: Uri,
    /// May hold credentials: never printed.
    pub headers: HeaderMap,
    /// How long sending a batch may take.
    pub timeout: Duration,
    pub sampler: Sampler,
    /// Attributes of this program, its name among them.
    pub resource: Vec<(String, String)>,
    /// How long spans may wait for others to be sent with.
    pub delay: Duration,
    /// How many may wait; more are lost.
    pub queue: usize,
    /// How many are sent at a time.
    pub batch: usize,
}

impl Settings {
    /// What the variables that `get` finds mean. `None`: no traces are wanted.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        if let Some(text) = get("OTEL_SDK_DISABLED") {
            match text.to_ascii_lowercase().as_str() {
                "1" | "t" | "true" => return Ok(None),
                "0" | "f" | "false" => {}
                _ => {
                    return Err(Error::invalid(format!(
                        "OTEL_SDK_DISABLED: {text:?} is neither true nor false"
                    )));
                }
            }
        }
        let of_traces = get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let of_all = get("OTEL_EXPORTER_OTLP_ENDPOINT");
        if of_traces.is_none() && of_all.is_none() {
            return Ok(None);
        }
        if let Some(other) = get("OTEL_TRACES_EXPORTER").filter(|name| name != "otlp") {
            return Err(Error::invalid(format!("OTEL_TRACES_EXPORTER: {other:?} is not supported")));
        }
        let either = |name: &str| {
            get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
                .or_else(|| get(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let protocol = match either("PROTOCOL").as_deref() {
            None | Some("http/protobuf") => Protocol::Http,
            Some("grpc") => Protocol::Grpc,
            Some(other) => {
                return Err(Error::unimplemented(format!("OTEL_EXPORTER_OTLP_PROTOCOL: {other:?}")));
            }
        };
        Ok(Some(Self {
            protocol,
            endpoint: endpoint(protocol, of_traces, of_all)?,
            headers: headers(&either("HEADERS").unwrap_or_default())?,
            timeout: milliseconds("TIMEOUT", either("TIMEOUT"), 10_000)?,
            sampler: sampler(get("OTEL_TRACES_SAMPLER").as_deref(), get("OTEL_TRACES_SAMPLER_ARG"))?,
            resource: resource(get("OTEL_SERVICE_NAME"), get("OTEL_RESOURCE_ATTRIBUTES"))?,
            delay: milliseconds("OTEL_BSP_SCHEDULE_DELAY", get("OTEL_BSP_SCHEDULE_DELAY"), 5000)?,
            queue: count("OTEL_BSP_MAX_QUEUE_SIZE", get("OTEL_BSP_MAX_QUEUE_SIZE"), 2048)?,
            batch: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"), 512)?,
        }))
    }
}

/// The address that spans are sent to. One that was given for traces is taken as it is; over HTTP the common one is the
/// place below which traces have theirs.
fn endpoint(protocol: Protocol, of_traces: Option<String>, of_all: Option<String>) -> Result<Uri> {
    let text = match (of_traces, of_all) {
        (Some(traces), _) => traces,
        (None, Some(all)) if protocol == Protocol::Http => format!("{}/v1/traces", all.trim_end_matches('/')),
        (None, all) => all.unwrap_or_default(),
    };
    // An address may carry credentials, so that it is not repeated.
    let uri: Uri = text.parse().map_err(|_| Error::invalid("OTEL_EXPORTER_OTLP_ENDPOINT: not a URL"))?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some() => Ok(uri),
        Some("https") => Err(Error::unimplemented("OTEL_EXPORTER_OTLP_ENDPOINT: https is not supported yet")),
        _ => Err(Error::invalid("OTEL_EXPORTER_OTLP_ENDPOINT: not a URL with http and a host")),
    }
}

/// `name=value,name=value`, the values escaped as in URLs.
fn pairs(variable: &str, text: &str) -> Result<Vec<(String, String)>> {
    let wrong = || Error::invalid(format!("{variable}: must be name=value, separated by commas"));
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
            Ok((name.trim().to_owned(), unescape(value.trim()).ok_or_else(wrong)?))
        })
        .collect()
}

/// `%41` is `A`.
pub fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let byte = if *first == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            rest = tail;
            u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
        } else {
            rest = tail;
            *first
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

fn headers(text: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs("OTEL_EXPORTER_OTLP_HEADERS", text)? {
        let wrong = |_: &dyn std::error::Error| Error::invalid("OTEL_EXPORTER_OTLP_HEADERS: not a header");
        let name: HeaderName = name.to_ascii_lowercase().parse().map_err(|e| wrong(&e))?;
        let mut value = HeaderValue::try_from(value).map_err(|e| wrong(&e))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn resource(service: Option<String>, attributes: Option<String>) -> Result<Vec<(String, String)>> {
    let mut resource = pairs("OTEL_RESOURCE_ATTRIBUTES", &attributes.unwrap_or_default())?;
    resource.retain(|(name, _)| name != "service.name");
    resource.insert(0, ("service.name".to_owned(), service.unwrap_or_else(|| "containerd".to_owned())));
    let own = [
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "containerd-rs"),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    resource.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    Ok(resource)
}

fn sampler(name: Option<&str>, argument: Option<String>) -> Result<Sampler> {
    let ratio = || match &argument {
        None => Ok(1.0),
        Some(text) => match text.parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
            _ => Err(Error::invalid(format!("OTEL_TRACES_SAMPLER_ARG: {text:?} is not from 0 to 1"))),
        },
    };
    let (parent, ratio) = match name {
        None | Some("parentbased_always_on") => (true, 1.0),
        Some("parentbased_always_off") => (true, 0.0),
        Some("parentbased_traceidratio") => (true, ratio()?),
        Some("always_on") => (false, 1.0),
        Some("always_off") => (false, 0.0),
        Some("traceidratio") => (false, ratio()?),
        Some(other) => {
            return Err(Error::invalid(format!("OTEL_TRACES_SAMPLER: {other:?} is not supported")));
        }
    };
    Ok(Sampler { parent, ratio })
}

fn milliseconds(variable: &str, text: Option<String>, default: usize) -> Result<Duration> {
    let number = count(variable, text, default)?;
    Ok(Duration::from_millis(u64::try_from(number).unwrap_or(u64::MAX)))
}

fn count(variable: &str, text: Option<String>, default: usize) -> Result<usize> {
    let Some(text) = text else { return Ok(default) };
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Error::invalid(format!("{variable}: {text:?} is not a number above zero"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>> {
        let find = |name: &str| Some(variables.iter().find(|(found, _)| *found == name)?.1.to_owned());
        Settings::read(find)
    }

    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

    #[test]
    fn nothing_is_traced_unless_an_endpoint_is_named() {
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[(ALL, "")]).unwrap().is_none());
        assert!(read(&[(ALL, "http://h:1"), ("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
        assert!(read(&[(ALL, "http://h:1"), ("OTEL_SDK_DISABLED", "maybe")]).is_err());
    }

    #[test]
    fn traces_have_a_place_below_the_common_endpoint_over_http_only() {
        let at = |variables: &[(&str, &str)]| read(variables).unwrap().unwrap().endpoint.to_string();
        assert_eq!(at(&[(ALL, "http://h:1/")]), "http://h:1/v1/traces");
        assert_eq!(at(&[(ALL, "http://h:1"), (TRACES, "http://t:2/x")]), "http://t:2/x");
        assert_eq!(at(&[(ALL, "http://h:1"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), "http://h:1/");
    }

    #[test]
    fn headers_and_attributes_are_unescaped_and_headers_are_sensitive() {
        let settings = read(&[
            (ALL, "http://h:1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20eA==, x-a=1"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=no,k8s.node.name=n1"),
            ("OTEL_SERVICE_NAME", "me"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.headers["authorization"], "Basic eA==");
        assert!(settings.headers["x-a"].is_sensitive());
        assert_eq!(settings.resource[0], ("service.name".into(), "me".into()));
        assert_eq!(settings.resource[1], ("k8s.node.name".into(), "n1".into()));
    }

    #[test]
    fn samplers_have_their_names() {
        let sampler = |name: &str, argument: &str| {
            let variables =
                [(ALL, "http://h:1"), ("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
            read(&variables).map(|settings| settings.unwrap().sampler)
        };
        assert_eq!(sampler("", "").unwrap(), Sampler { parent: true, ratio: 1.0 });
        assert_eq!(sampler("traceidratio", "0.25").unwrap(), Sampler { parent: false, ratio: 0.25 });
        assert_eq!(sampler("parentbased_always_off", "").unwrap(), Sampler { parent: true, ratio: 0.0 });
        assert!(sampler("traceidratio", "2").is_err() && sampler("jaeger_remote", "").is_err());
    }

    #[test]
    fn a_mistake_names_its_variable_and_no_credential() {
        for wrong in [
            vec![(ALL, "https://u:S3CRET@h")],
            vec![(ALL, "u:S3CRET@h")],
            vec![(ALL, "http://h"), ("OTEL_EXPORTER_OTLP_HEADERS", "S3CRET")],
            vec![(ALL, "http://h"), ("OTEL_EXPORTER_OTLP_HEADERS", "a=S3CRET%0")],
            vec![(ALL, "http://h"), ("OTEL_EXPORTER_OTLP_HEADERS", "a=S3CRET%0a")],
            vec![(ALL, "http://h"), ("OTEL_BSP_MAX_QUEUE_SIZE", "0")],
            vec![(ALL, "http://h"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
            vec![(ALL, "http://h"), ("OTEL_TRACES_EXPORTER", "zipkin")],
        ] {
            let error = read(&wrong).err().unwrap().to_string();
            assert!(error.contains("OTEL_") && !error.contains("S3CRET"), "{error}");
        }
    }
}
