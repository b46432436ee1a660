//! How the server is set up, and warnings about it.

use std::collections::HashMap;

use redis::{RedisError, Value, from_redis_value};

use super::{connection::Link, keys::FarmKeys, script::SCRIPTS};

/// What a server reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Version as Redis counts it; Valkey reports the one that it is compatible with.
    pub version: String,
    /// New for every start of the server.
    pub run_id: String,
    /// Bytes in use.
    pub used_memory: u64,
    /// Most bytes it may use; 0 for no limit.
    pub max_memory: u64,
    /// What it does when full.
    pub max_memory_policy: String,
    /// What an operator should change, one sentence each.
    pub warnings: Vec<String>,
}

impl Health {
    fn parse(text: &str) -> Self {
        let facts: HashMap<&str, &str> =
            text.lines().filter_map(|line| line.trim().split_once(':')).collect();
        let fact = |name: &str| facts.get(name).copied().unwrap_or_default();
        let mut warnings = Vec::new();
        let policy = fact("maxmemory_policy");
        if !matches!(policy, "noeviction" | "") {
            warnings.push(format!(
                "maxmemory-policy is {policy}: Redis may drop tasks when it is full, and the sweep has to find them; \
                 set it to noeviction"
            ));
        }
        if fact("role") == "slave" {
            warnings
                .push("this Redis is a replica and takes no writes; name the primary".to_owned());
        }
        if fact("rdb_last_bgsave_status") == "err" {
            warnings
                .push("Redis cannot save to disk and may refuse writes; see its log".to_owned());
        }
        Self {
            version: fact("redis_version").to_owned(),
            run_id: fact("run_id").to_owned(),
            used_memory: fact("used_memory").parse().unwrap_or(0),
            max_memory: fact("maxmemory").parse().unwrap_or(0),
            max_memory_policy: policy.to_owned(),
            warnings,
        }
    }

    /// Whether the version is 7.0 or newer.
    pub(super) fn is_new_enough(&self) -> bool {
        self.version
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok())
            .is_some_and(|major| major >= 7)
    }
}

pub(super) async fn read_health(link: &Link, farm: &FarmKeys) -> Result<Health, RedisError> {
    let value: Value = link.run(&SCRIPTS.info, SCRIPTS.info.call(&[&farm.owner])).await?;
    Ok(Health::parse(&from_redis_value::<String>(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evicting_server_is_warned_of_and_an_old_one_known() {
        let health = Health::parse(
            "# Server\r\nredis_version:7.2.4\r\nrun_id:ab\r\n# Memory\r\nused_memory:10\r\nmaxmemory:20\r\nmaxmemory_policy:allkeys-lru\r\nrole:master\r\n",
        );
        assert!(health.is_new_enough());
        assert_eq!((health.used_memory, health.max_memory), (10, 20));
        assert!(health.warnings[0].contains("allkeys-lru"), "{health:?}");
        assert!(!Health::parse("redis_version:6.2.14\r\n").is_new_enough());
        assert!(!Health::parse("").is_new_enough());
        assert!(Health::parse("maxmemory_policy:noeviction\r\n").warnings.is_empty());
    }
}
