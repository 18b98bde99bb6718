//! Exec: a process added to a running container.

use std::os::unix::fs::OpenOptionsExt;

use api::containerd::task::v3::ExecProcessRequest;
use types::{Error, Result, ResultExt};

use super::create::{check_name, of_streams};
use super::{Driver, Live};
use crate::call::Call;
use crate::context::Context;
use crate::io::{Place, Plan, Stdio};
use crate::json::{self, Parser};
use crate::state::Input;

impl Driver {
    /// Adds a process for `call`.
    pub fn exec(&mut self, cx: &mut Context, request: ExecProcessRequest, call: Call) -> Result<()> {
        let exec = request.exec_id;
        check_name(&exec, "exec id")?;
        let (stdin, stdout, stderr) = (request.stdin, request.stdout, request.stderr);
        let stdio = Stdio { stdin, stdout, stderr, terminal: request.terminal };
        if !self.processes.contains_key(&exec) {
            let spec = request.spec.unwrap_or_default();
            let process = with_terminal(&spec.value, stdio.terminal)?;
            let path = self.runtime.process_file(&exec);
            let mut options = std::fs::OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
            file.and_then(|mut f| std::io::Write::write_all(&mut f, &process))
                .context(|| format!("write {}", path.display()))?;
            self.processes.insert(exec.clone(), Live::new(&self.id, &exec, stdio));
        }
        self.feed(cx, Input::Exec { exec: exec.clone(), call });
        if !self.state.execs.contains_key(&exec) {
            self.forget_exec(cx, &exec);
        }
        Ok(())
    }

    pub(super) fn start_exec(&mut self, cx: &mut Context, exec: &str) -> Result<()> {
        let console = cx.console_path();
        let Some(live) = self.processes.get_mut(exec) else {
            return Err(Error::internal("an exec without its streams"));
        };
        let place = Place {
            namespace: &cx.namespace,
            process: (&self.id, exec),
            bundle: &self.bundle,
            console: &console,
            owner: self.pipe_owner,
        };
        let plan = Plan::open(&live.stdio, &place).map_err(of_streams)?;
        let plan = live.plan.insert(plan);
        cx.adopt_logger(&live.owner, plan)?;
        if plan.awaits().is_some() { Ok(()) } else { self.launch_exec(cx, exec) }
    }

    /// What takes its output is ready: lets the runtime start an exec.
    pub(super) fn launch_exec(&mut self, cx: &mut Context, exec: &str) -> Result<()> {
        let Some(plan) = self.processes.get_mut(exec).and_then(|live| live.plan.as_mut()) else {
            return Err(Error::internal("an exec without its streams"));
        };
        let begun = self.runtime.exec(exec, plan.streams(), plan.console());
        plan.launched();
        begun.and_then(|run| self.track(cx, run))
    }

    /// The runtime call that starts an exec has ended.
    pub(super) fn exec_ended(&mut self, cx: &mut Context, exec: String, outcome: Result<()>) {
        let result = outcome.and_then(|()| self.begin_process(cx, &exec));
        if let (Err(_), Some(live)) = (&result, self.processes.get_mut(&exec)) {
            live.plan = None;
        }
        let _ = std::fs::remove_file(self.runtime.log_file(&exec));
        self.feed(cx, Input::Started { exec, result });
    }

    pub(super) fn forget_exec(&mut self, cx: &mut Context, exec: &str) {
        if let Some(live) = self.processes.remove(exec) {
            cx.abandon(&live.owner);
        }
        for file in [self.runtime.pid_file(exec), self.runtime.process_file(exec)] {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// The process as the client described it, but with a terminal or without one as the request says.
fn with_terminal(process: &[u8], terminal: bool) -> Result<Vec<u8>> {
    let mut text = vec![b'{'];
    let mut parser = Parser::new(process);
    parser.object(|p, key| {
        // The value begins where the next token does.
        p.peek()?;
        let start = p.offset();
        p.skip()?;
        if key != "terminal" {
            let mut name = String::new();
            json::quote(key, &mut name);
            text.extend_from_slice(name.as_bytes());
            text.push(b':');
            text.extend_from_slice(process.get(start..p.offset()).unwrap_or_default());
            text.push(b',');
        }
        Ok(())
    })?;
    text.extend_from_slice(if terminal { br#""terminal":true}"# } else { br#""terminal":false}"# });
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_decides_on_the_terminal_and_the_rest_stays_as_it_was() {
        let process = br#" {"args":["a","b\u0041"], "terminal" : true, "x":{"terminal":1}} "#;
        let text = with_terminal(process, false).unwrap();
        let wanted = r#"{"args":["a","b\u0041"],"x":{"terminal":1},"terminal":false}"#;
        assert_eq!(String::from_utf8(text).unwrap(), wanted);
        assert_eq!(with_terminal(b"{}", true).unwrap(), br#"{"terminal":true}"#);
        assert!(with_terminal(b"", true).is_err());
    }
}
