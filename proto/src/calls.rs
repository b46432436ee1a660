//! What servers and clients must know about each method: how long it may take, which scope its
//! caller needs, and what it streams.
//!
//! The table comes from the options beside the methods in the .proto files (`option (call) =
//! CALL_CLASS_SHORT;`). A method without a class or without a scope does not compile.

use darkroom_core::scope::Scope;

include!("generated/calls.rs");

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Answered within a minute.
    Short,
    /// Receives a stream, and may take up to an hour.
    Long,
    /// Sends a stream that stays open for as long as the client wants.
    Lasting,
}

/// One method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// How long it may take.
    pub class: Class,
    /// What its caller must be allowed to do.
    pub scope: Scope,
    /// The client sends a stream.
    pub receives_stream: bool,
    /// The server answers with a stream.
    pub sends_stream: bool,
    /// The handler collects the whole stream of requests in memory.
    pub gathers: bool,
    /// The answers are compressed data already.
    pub compressed: bool,
}

/// The method with this path, if the protocol has it.
#[must_use]
pub fn find(path: &str) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.path == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_of_the_descriptor_has_a_class_and_its_streams() {
        let set = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).expect("descriptors");
        let mut described = BTreeMap::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    described.insert(path, (method.client_streaming(), method.server_streaming()));
                }
            }
        }
        let streams = |call: &Call| (call.receives_stream, call.sends_stream);
        let told: BTreeMap<_, _> =
            CALLS.iter().map(|call| (call.path.to_owned(), streams(call))).collect();
        assert_eq!(told, described);
        assert!(told.len() > 15, "{told:?}");
    }

    #[test]
    fn a_method_that_receives_a_stream_of_any_length_is_long() {
        for call in CALLS {
            assert_eq!(call.class == Class::Long, call.receives_stream, "{call:?}");
            assert!(call.class != Class::Lasting || call.sends_stream, "{call:?}");
            assert!(!call.gathers || call.receives_stream, "{call:?}");
        }
    }

    #[test]
    fn a_method_that_changes_something_is_not_for_readers() {
        let changes =
            ["Submit", "Upload", "Cancel", "Pause", "Resume", "Retry", "Delete", "Drain", "Create"];
        for call in CALLS {
            let (service, method) = call.path.rsplit_once('/').expect("a path");
            let expected = match service {
                "/darkroom.v1.Admin" => Scope::Admin,
                "/darkroom.v1.Encoder" => Scope::Operate,
                _ if ["ListWorkers", "DrainWorker", "FarmHistory"].contains(&method) => {
                    Scope::Operate
                }
                "/darkroom.v1.Farm" if changes.iter().any(|verb| method.starts_with(verb)) => {
                    Scope::Submit
                }
                "/darkroom.v1.Farm" => Scope::Read,
                _ => Scope::Member,
            };
            assert_eq!(call.scope, expected, "{call:?}");
        }
    }

    #[test]
    fn a_large_dry_run_may_take_as_long_as_the_submit_it_stands_for() {
        assert_eq!(farm::FORECAST_JOB.class, farm::SUBMIT_JOB_STREAM.class);
        assert_eq!(find("/darkroom.v1.Farm/ForecastJob").map(|call| call.class), Some(Class::Long));
    }
}
