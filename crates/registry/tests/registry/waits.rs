//! A registry that is busy is waited for: a few times, not long, and by nobody who went away.

use std::time::{Duration, Instant};

use registry::fake::{Fake, Fault, When};
use types::Class;

use crate::setup::{client, image};

#[tokio::test]
async fn a_registry_that_comes_back_is_waited_for() {
    for status in [408, 429, 500, 502, 503, 504] {
        let fake = Fake::start();
        let (_, reference) = image(&fake);
        fake.fault(When::path("/manifests/").times(3), Fault::Status(status));
        client().resolve(&reference).await.unwrap();
        assert_eq!(fake.requests().len(), 4, "{status}");
    }
}

#[tokio::test]
async fn whatever_it_asks_for_the_wait_is_bounded() {
    for asked in ["1", "3600", "Wed, 21 Oct 2099 07:28:00 GMT", "soon", "-1", "99999999999999999999"] {
        let fake = Fake::start();
        let (_, reference) = image(&fake);
        fake.fault(When::path("/manifests/"), Fault::Answer(429, vec![("retry-after", asked.into())]));
        let began = Instant::now();
        let error = client().resolve(&reference).await.unwrap_err();
        assert_eq!(error.class(), Class::Unavailable, "{error}");
        assert!(error.to_string().contains("429 Too Many Requests"), "{error}");
        assert_eq!(fake.requests().len(), 5, "{asked}");
        assert!(began.elapsed() < Duration::from_secs(20), "{asked}");
    }
}

#[tokio::test]
async fn a_registry_that_never_answers_is_given_up() {
    let fake = Fake::start();
    let (_, reference) = image(&fake);
    fake.fault(When::path(""), Fault::Hang(Duration::from_secs(60)));
    let error = client().resolve(&reference).await.unwrap_err();
    assert_eq!(error.class(), Class::DeadlineExceeded, "{error}");
    assert!(error.to_string().contains("no answer within"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_an_error_at_once() {
    let (_, reference) = image(&Fake::start());
    let error = client().resolve(&reference).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable, "{error}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
}
