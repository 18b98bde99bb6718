//! What `--http-dump` and `--http-trace` show.

use std::sync::{Arc, Mutex};

use registry::fake::{Auth, Fake, Fault, Setup, When};
use registry::{Credential, Fixed, Note, Settings, Trace};

use crate::setup::{client_with, image};

#[derive(Default)]
struct Notes(Mutex<Vec<(Note, String)>>);

impl Trace for Notes {
    fn note(&self, kind: Note, text: &str) {
        self.0.lock().unwrap().push((kind, text.to_owned()));
    }
}

#[tokio::test]
async fn requests_and_answers_are_shown_without_secrets() {
    let fake = Fake::with(Setup { auth: Auth::Basic("u".into(), "sesame".into()), ..Setup::default() });
    let (_, reference) = image(&fake);
    let location = format!("{}/gone?X-Amz-Signature=sesame", fake.origin());
    fake.fault(When::path("/manifests/"), Fault::Redirect(307, location));
    let notes = Arc::new(Notes::default());
    let mut headers = http::HeaderMap::new();
    headers.insert("x-key", "sesame".parse().unwrap());
    let settings = Settings { trace: Some(notes.clone()), headers, ..Settings::default() };
    let credential = Credential::Basic { user: "u".into(), secret: "sesame".into() };
    let error = client_with(settings, Arc::new(Fixed(credential))).resolve(&reference).await.unwrap_err();
    let notes = notes.0.lock().unwrap();
    let all: String = notes.iter().map(|(_, text)| text.as_str()).collect();
    for shown in
        ["HEAD http://127.0.0.1", "accept: ", "x-key: REDACTED", "307 Temporary Redirect", "location: http"]
    {
        assert!(all.contains(shown), "{shown}: {all}");
    }
    assert!(
        notes
            .iter()
            .any(|(kind, text)| *kind == Note::Connection && text.contains(" answered from 127.0.0.1:"))
    );
    assert!(!all.contains("sesame") && !error.to_string().contains("sesame"), "{all}\n{error}");
}
