//! Names of signals: the kubelet's and an image's. The kernel's numbers are in `types::signal`.

use api::cri::Signal;
use types::{Error, Result};

/// The name of what a request says, in an image's form; none for the default.
pub fn requested(signal: i32) -> Result<Option<String>> {
    match Signal::try_from(signal) {
        Ok(Signal::RuntimeDefault) => Ok(None),
        Ok(signal) => Ok(Some(signal.as_str_name().replacen("PLUS", "+", 1).replacen("MINUS", "-", 1))),
        Err(_) => Err(Error::invalid(format!("unknown CRI stop signal {signal}: invalid argument"))),
    }
}

/// What the kubelet is told of a signal in an image's form.
pub fn told(name: &str) -> Signal {
    Signal::from_str_name(&name.replacen('+', "PLUS", 1).replacen('-', "MINUS", 1))
        .unwrap_or(Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use types::signal::number;

    use super::*;

    #[test]
    fn every_signal_of_a_request_has_a_number_and_comes_back() {
        for value in 1..=65 {
            let name = requested(value).unwrap().unwrap();
            number(&name).unwrap();
            assert_eq!(told(&name) as i32, value, "{name}");
        }
        assert_eq!(requested(0).unwrap(), None);
        assert!(requested(66).is_err());
    }

    #[test]
    fn what_images_write_is_read() {
        for (text, wanted) in [("9", 9), ("kill", 9), ("SIGTERM", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)] {
            assert_eq!(number(text).unwrap(), wanted, "{text}");
        }
        for bad in ["", "0", "-1", "SIG", "SIGNOPE", "RTMIN+99"] {
            assert!(number(bad).is_err(), "{bad}");
        }
        assert_eq!(told("TERM"), Signal::RuntimeDefault);
    }
}
