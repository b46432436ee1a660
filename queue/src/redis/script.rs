//! The Lua scripts, run by their hash and loaded where a server does not know them.

use std::sync::LazyLock;

use redis::{Cmd, cmd};

macro_rules! scripts {
    ($($name:ident)+) => {
        /// Every script.
        #[derive(Debug)]
        pub(super) struct Scripts {
            $(pub(super) $name: Script,)+
        }

        pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
            $($name: Script::new(
                concat!(include_str!("scripts/prelude.lua"), "\n", include_str!(concat!("scripts/", stringify!($name), ".lua")))
            ),)+
        });
    };
}

scripts! {
    add announce ask_to_drain claim complete entries forget hand_back heartbeat info lease reap remove results ring
    set_aside waiting withdraw workers
}

/// A script and its hash.
#[derive(Debug)]
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// A call with these keys; arguments follow.
    pub(super) fn call(&self, keys: &[&str]) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(&self.hash).arg(keys.len()).arg(keys);
        call
    }

    pub(super) fn load(&self) -> Cmd {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(self.code);
        load
    }
}
