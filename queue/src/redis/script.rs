//! The Lua scripts. They are run by their hash, and loaded if a server does not know them.

use std::sync::LazyLock;

use darkroom_core::guard::{self, Guard};
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
                stringify!($name),
                concat!(include_str!("scripts/prelude.lua"), "\n", include_str!(concat!("scripts/", stringify!($name), ".lua")))
            ),)+
        });
    };
}

scripts! {
    add announce ask_to_drain claim complete entries forget hand_back heartbeat info lease mark mend reap remove results
    ring set_aside waiting withdraw workers
}

/// Lines that the guards' tests take out: the guard, its script, the line and its replacement.
const GUARDS: [(Guard, &str, &str, &str); 9] = [
    (Guard::HeartbeatOwner, "heartbeat", "if mine[stream][id] then", "if true then"),
    (Guard::CompleteOwner, "complete", "if mine[stream][id] then", "if true then"),
    (Guard::HandBackOwner, "hand_back", "if mine[stream][id] then", "if true then"),
    (Guard::ReapIdle, "reap", "'IDLE', ARGV[1]", "'IDLE', 0"),
    (Guard::ReapPause, "reap", "ARGV[2] ~= '' and ARGV[2] ~= run", "false"),
    (Guard::ConsumerEmpty, "reap", "facts['pending'] == 0 and", ""),
    (Guard::GroupAtStart, "lease", "GROUP, '0')\n  return '0-0'", "GROUP, '$')\n  return '0-0'"),
    (Guard::SuspectAlone, "lease", "if entry[2][3] == 's' then", "if false then"),
    (Guard::PoolLimit, "add", "> tonumber(ARGV[1]) then return 0 end", "< 0 then return 0 end"),
];

/// A script and its hash.
#[derive(Debug)]
pub(super) struct Script {
    name: &'static str,
    code: &'static str,
    hash: String,
}

impl Script {
    fn new(name: &'static str, code: &'static str) -> Self {
        Self { name, code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// The script with all guards that stand.
    fn code(&self) -> &'static str {
        let lines = GUARDS.iter().filter(|(_, name, ..)| !guard::all_stand() && *name == self.name);
        lines.fold(self.code, |code, (guard, _, line, instead)| {
            guard::text(*guard, code, line, instead)
        })
    }

    /// Whether a second call adds something twice.
    pub(super) fn adds(&self) -> bool {
        matches!(self.name, "add" | "complete" | "hand_back")
    }

    /// A call with these keys. The arguments follow.
    pub(super) fn call(&self, keys: &[&str]) -> Cmd {
        let mut call = cmd("EVALSHA");
        if guard::all_stand() {
            call.arg(&self.hash);
        } else {
            call.arg(redis::Script::new(self.code()).get_hash());
        }
        call.arg(keys.len()).arg(keys);
        call
    }

    pub(super) fn load(&self) -> Cmd {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(self.code());
        load
    }
}
