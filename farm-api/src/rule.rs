//! What a request needs before it is let in, by its path alone.
//!
//! The scope of a call is its option in the descriptor. Whatever has no rule here is refused.

use darkroom_core::scope::Scope;
use darkroom_proto::calls;

/// gRPC health, which load balancers and probes ask without a key.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// gRPC reflection, in any version.
const REFLECTION: &str = "/grpc.reflection.";

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing.
    Open,
    /// A caller, whatever it may do.
    Anybody,
    /// A caller with this scope.
    Scope(Scope),
    /// There is no such call.
    Unknown,
}

/// The rule for a path.
pub(crate) fn of(path: &str) -> Rule {
    if path.starts_with(HEALTH) {
        return Rule::Open;
    }
    if path.starts_with(REFLECTION) {
        return Rule::Scope(Scope::Operate);
    }
    calls::find(path).map_or(Rule::Unknown, |call| Rule::Scope(call.scope))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_the_rule_of_the_descriptor_and_only_health_is_open() {
        for call in calls::CALLS {
            assert_eq!(of(call.path), Rule::Scope(call.scope), "{call:?}");
        }
        for path in ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"] {
            assert_eq!(of(path), Rule::Open);
        }
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            assert_eq!(of(&path), Rule::Scope(Scope::Operate));
        }
        for path in [
            "",
            "/",
            "/darkroom.v1.Farm/",
            "/darkroom.v1.Farm/GetJob/",
            "//darkroom.v1.Farm/GetJob",
            "/darkroom.v1.Farm/getjob",
            "/darkroom.v1.Farm/GetJob?x",
            "/grpc.health.v1.Health",
            "/darkroom.v1.Secret/Get",
        ] {
            assert_eq!(of(path), Rule::Unknown, "{path}");
        }
    }
}
