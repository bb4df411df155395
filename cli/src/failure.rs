//! How a verb fails: a message for a person or a program, and an exit code.

use std::process::ExitCode;

use scx_upgrade_sdk::Error;
use serde::Serialize;

/// See the module.
#[derive(Debug, Serialize)]
pub struct Failure {
    pub exit_code: u8,
    pub message: String,
}

impl Failure {
    pub fn new(exit_code: u8, message: impl Into<String>) -> Failure {
        Failure { exit_code, message: message.into() }
    }

    /// Print it and give its exit code.
    pub fn report(&self, json: bool) -> ExitCode {
        if json {
            crate::output::json(&serde_json::json!({ "error": self }));
        } else {
            eprintln!("error: {}", self.message);
        }
        ExitCode::from(self.exit_code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { exit_code: error.exit_code(), message: error.to_string() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::new(1, format!("{error:#}"))
    }
}
