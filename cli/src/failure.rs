//! How a verb fails: a message for a person or a program, and an exit code.

use std::process::ExitCode;

use scx_upgrade_engine::Error;
use scx_upgrade_engine::exit::Exit;
use scx_upgrade_engine::os::logger;
use serde::Serialize;
use serde_json::Value;

/// See the module.
#[derive(Debug, Serialize)]
pub struct Failure {
    pub exit_code: u8,
    pub message: String,
    /// What the verb found or did before, which JSON has in the same document.
    #[serde(skip)]
    pub document: Option<Value>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure::with_code(exit.code(), message)
    }

    pub fn with_code(exit_code: u8, message: impl Into<String>) -> Failure {
        Failure { exit_code, message: message.into(), document: None }
    }

    /// Print it and give its exit code.
    pub fn report(self, json: bool) -> i32 {
        let exit_code = i32::from(self.exit_code);
        if !json {
            logger::print_error(format_args!("error: {}", self.message));
        } else if let Some(document) = self.into_document() {
            crate::print::json(&document);
        }
        exit_code
    }

    /// The one document of JSON: what was found or done, and the error. A list has no place for the error, and has what failed in it.
    fn into_document(mut self) -> Option<Value> {
        match self.document.take() {
            None => Some(serde_json::json!({ "error": self })),
            Some(Value::Object(mut document)) => {
                document.insert("error".to_string(), serde_json::json!(self));
                Some(Value::Object(document))
            }
            Some(Value::Null) => None,
            Some(other) => Some(other),
        }
    }
}

/// What is wrong with the command line, or the help that it asks for.
pub fn usage(error: &clap::Error) -> ExitCode {
    // It was not understood, so whether it asks for JSON is known only roughly.
    if error.use_stderr() && std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let text = text.trim_end();
        let failure = Failure::new(Exit::Usage, text.strip_prefix("error: ").unwrap_or(text));
        return ExitCode::from(failure.report(true) as u8);
    }
    // Nobody can be told where it cannot be written.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { Exit::Usage } else { Exit::Done }.code())
}

impl Failure {
    /// The failure of this, with the log of libbpf and the verifier if `-v` asks for it.
    pub fn of(error: &Error) -> Failure {
        let message = match error.log().filter(|_| log::max_level() >= log::LevelFilter::Info) {
            Some(log) => format!("{error}\n{log}"),
            None => error.to_string(),
        };
        Failure::new(error.exit(), message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(error.exit(), error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::new(Exit::Failed, format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(document: Option<Value>) -> Option<Value> {
        Failure { document, ..Failure::new(Exit::DefaultScheduler, "why") }.into_document()
    }

    #[test]
    fn there_is_one_document_with_the_error_in_it() {
        let error = json!({ "exit_code": 5, "message": "why" });
        assert_eq!(with(None), Some(json!({ "error": error })));
        let status = json!({ "running": false });
        assert_eq!(with(Some(status)), Some(json!({ "running": false, "error": error })));
        assert_eq!(with(Some(json!([1]))), Some(json!([1])));
        assert_eq!(with(Some(Value::Null)), None);
    }
}
