//! How an exec or attach has ended, in the words of its error stream.

use serde_json::{Value, json};
use types::Result;

/// How it has ended.
#[derive(Debug)]
pub enum Ending {
    /// As it should.
    Success,
    /// With an exit code that is not zero; why, for people.
    Exit(u32, String),
    /// Not at all.
    Failure(String),
}

impl Ending {
    /// Of an exec of `command`.
    pub fn of_exec(result: Result<u32>, command: &[String]) -> Self {
        match result {
            Ok(0) => Self::Success,
            Ok(code) => {
                // As Go prints a list.
                let command = command.join(" ");
                let why = format!("error executing command [{command}], exit code {code}");
                Self::Exit(code, format!("command terminated with non-zero exit code: {why}"))
            }
            Err(error) => Self::Failure(format!(
                "error executing command in container: failed to exec in container: {error}"
            )),
        }
    }

    /// Of an attach.
    pub fn of_attach(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Success,
            Err(error) => Self::Failure(format!("error attaching to container: {error}")),
        }
    }

    /// As version 4 of the protocol has it: a `metav1.Status`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Success => json!({ "status": "Success" }),
            Self::Exit(code, message) => json!({
                "status": "Failure",
                "message": message,
                "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            }),
            Self::Failure(why) => json!({
                "status": "Failure",
                "message": format!("Internal error occurred: {why}"),
                "reason": "InternalError",
                "code": 500,
            }),
        }
    }

    /// As the versions before have it: text, if anything went wrong.
    pub fn to_text(&self) -> Option<String> {
        match self {
            Self::Success => None,
            Self::Exit(_, message) => Some(message.clone()),
            Self::Failure(why) => Some(format!("Internal error occurred: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use types::Error;

    use super::*;

    #[test]
    fn an_exit_code_is_a_cause() {
        let ending = Ending::of_exec(Ok(3), &["sh".to_owned(), "-c".to_owned()]);
        assert_eq!(
            ending.to_json().to_string(),
            r#"{"status":"Failure","message":"command terminated with non-zero exit code: error executing command [sh -c], exit code 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
        );
        assert!(ending.to_text().unwrap().ends_with("exit code 3"));
    }

    #[test]
    fn success_needs_no_words() {
        let ending = Ending::of_exec(Ok(0), &[]);
        assert_eq!(
            (ending.to_json().to_string().as_str(), ending.to_text()),
            (r#"{"status":"Success"}"#, None)
        );
    }

    #[test]
    fn a_failure_is_internal() {
        let ending = Ending::of_attach(Err(Error::not_found("container x")));
        let text = "Internal error occurred: error attaching to container: container x";
        assert_eq!(ending.to_text().unwrap(), text);
        assert_eq!(ending.to_json()["code"], 500);
    }
}
