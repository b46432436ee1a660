//! Models are the farm's cascades, under their names and aliases.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{extract::State, response::Response};
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Answer, Caller};
use darkroom_proto::v1;
use http::StatusCode;
use serde::Serialize;

use super::aliases::Aliases;
use crate::{entry::Entry, json_answer::json, problem::Refusal, site::Site, words::told};

/// A model.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Model {
    id: String,
    object: &'static str,
    /// Seconds since 1970 in OpenAI's API. The farm does not know when a cascade was made.
    created: u64,
    owned_by: &'static str,
    /// Name of the cascade that it is.
    cascade: String,
    /// Digest of the cascade.
    digest: String,
}

/// All models.
#[derive(Debug, Serialize)]
struct List {
    object: &'static str,
    data: Vec<Model>,
}

/// `GET /v1/models`.
pub(super) async fn list(State(site): State<Arc<Site>>, entry: Entry) -> Result<Response, Refusal> {
    let models = Models::of(&site, &entry.caller).await?;
    let list = List { object: "list", data: models.all() };
    json(StatusCode::OK, &list, Some(entry.headers()))
}

/// `GET /v1/models/{model}`.
pub(super) async fn show(State(site): State<Arc<Site>>, entry: Entry) -> Result<Response, Refusal> {
    let models = Models::of(&site, &entry.caller).await?;
    let id = entry.params.get("model");
    let model = Model::of(id, models.named(id)?);
    json(StatusCode::OK, &model, Some(entry.headers()))
}

/// The farm's cascades, and the names that mean one of them.
pub(super) struct Models<'a> {
    /// The first one is the default.
    cascades: Vec<v1::Cascade>,
    aliases: &'a Aliases,
}

impl<'a> Models<'a> {
    pub(super) async fn of(site: &'a Site, caller: &Caller) -> Answer<Self> {
        let farm = site.farm.get_farm(caller, v1::GetFarmRequest {}).await?;
        Ok(Self { cascades: farm.cascades, aliases: &site.openai.aliases })
    }

    /// The cascade with this name, digest or alias; without a name, the default one.
    pub(super) fn named(&self, name: &str) -> Answer<&v1::Cascade> {
        let found = if name.is_empty() {
            self.cascades.first()
        } else {
            self.own(name).or_else(|| self.meant(self.aliases.get(name)?))
        };
        found.ok_or_else(|| self.unknown(name))
    }

    fn own(&self, name: &str) -> Option<&v1::Cascade> {
        self.cascades.iter().find(|cascade| cascade.name == name || cascade.digest == name)
    }

    /// The cascade that an alias means.
    fn meant(&self, cascade: &str) -> Option<&v1::Cascade> {
        if cascade.is_empty() { self.cascades.first() } else { self.own(cascade) }
    }

    /// The digests of the cascades, by the names and aliases that mean them; that of the default one
    /// has the empty name, too.
    pub(super) fn digests(&self) -> BTreeMap<String, String> {
        let models = self.all().into_iter().map(|model| (model.id, model.digest));
        let own = self.cascades.iter().map(|one| (one.digest.clone(), one.digest.clone()));
        let usual = self.cascades.first().map(|one| (String::new(), one.digest.clone()));
        own.chain(models).chain(usual).collect()
    }

    /// Cascades first, then aliases that mean one of them. A cascade's name counts before an alias.
    fn all(&self) -> Vec<Model> {
        let own = self.cascades.iter().map(|cascade| Model::of(&cascade.name, cascade));
        let aliases = self.aliases.all();
        let aliases = aliases.filter_map(|(name, cascade)| Some((name, self.meant(cascade)?)));
        let mut seen = BTreeSet::new();
        let models = own.chain(aliases.map(|(name, cascade)| Model::of(name, cascade)));
        models.filter(|model| seen.insert(model.id.clone())).collect()
    }

    fn unknown(&self, name: &str) -> UserError {
        let names: Vec<_> = self.all().into_iter().map(|model| model.id).collect();
        let name = told(name);
        let message = if names.is_empty() {
            format!(
                "model is {name:?}, but this farm has no cascades now; add one, or try again later"
            )
        } else {
            format!("model is {name:?}; accepted: {}", names.join(", "))
        };
        let error = UserError::new(Code::NotFound, "MODEL_NOT_FOUND", message);
        UserError { field: Some("model".to_owned()), ..error }
    }
}

impl Model {
    fn of(id: &str, cascade: &v1::Cascade) -> Self {
        Self {
            id: id.to_owned(),
            object: "model",
            created: 0,
            owned_by: "darkroom",
            cascade: cascade.name.clone(),
            digest: cascade.digest.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cascade(name: &str, digest: &str) -> v1::Cascade {
        v1::Cascade { name: name.into(), digest: digest.into(), ..Default::default() }
    }

    #[test]
    fn a_model_is_a_cascade_by_name_digest_or_alias() {
        let flags = ["fast=second", "gone=third", "second=demo"].map(|flag| flag.parse());
        let flags = flags.map(|flag| flag.expect("an alias"));
        let aliases = Aliases::with(&flags);
        let cascades = vec![cascade("demo", "d1"), cascade("second", "d2")];
        let models = Models { cascades, aliases: &aliases };
        for (name, digest) in [
            ("", "d1"),
            ("demo", "d1"),
            ("d2", "d2"),
            ("second", "d2"),
            ("gpt-image-1", "d1"),
            ("dall-e-3", "d1"),
            ("fast", "d2"),
        ] {
            assert_eq!(models.named(name).expect(name).digest, digest, "{name}");
        }
        let ids: Vec<_> = models.all().into_iter().map(|model| model.id).collect();
        assert_eq!(ids, ["demo", "second", "dall-e-3", "fast", "gpt-image-1"]);
        for unknown in ["gone", "dall-e-2", "DEMO", "d"] {
            let error = models.named(unknown).expect_err(unknown);
            assert_eq!((error.code, &error.reason[..]), (Code::NotFound, "MODEL_NOT_FOUND"));
            assert_eq!(
                error.message,
                format!(
                    "model is {unknown:?}; accepted: demo, second, dall-e-3, fast, gpt-image-1"
                )
            );
        }
        let none = Models { cascades: Vec::new(), aliases: &aliases };
        let error = none.named("").expect_err("none");
        assert_eq!(
            error.message,
            "model is \"\", but this farm has no cascades now; add one, or try again later"
        );
    }
}
