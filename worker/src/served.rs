//! The stages that a worker serves.

use std::path::PathBuf;

use darkroom_artifacts::CascadeBundle;
use darkroom_core::{
    error::{Code, UserError},
    id::StageName,
    settings::StageSettings,
};
use darkroom_queue::task::PoolId;

/// One stage of a cascade that a worker serves.
#[derive(Clone, Debug)]
pub struct Served {
    /// Its pool.
    pub pool: PoolId,
    /// Edge of its output, pixels.
    pub size: u32,
    /// Folder of its files.
    pub folder: PathBuf,
    /// Its settings, unless a job says otherwise.
    pub usual: StageSettings,
    /// Tokens per text.
    pub tokens: usize,
}

/// The stages to serve, later ones first, so that started images finish before new ones start.
pub(crate) fn served(
    wanted: &[StageName],
    cascades: &[CascadeBundle],
) -> Result<Vec<Served>, UserError> {
    let known = |name: &StageName| {
        cascades
            .iter()
            .any(|bundle| bundle.cascade().spec.stages.iter().any(|stage| &stage.name == name))
    };
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        let stages = cascades.iter().flat_map(|bundle| &bundle.cascade().spec.stages);
        let mut names: Vec<_> = stages.map(|stage| stage.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        return Err(UserError::invalid(
            "stages",
            format!("stage is {:?}; accepted: {}", unknown.as_str(), names.join(", ")),
        ));
    }
    let mut served = Vec::new();
    for bundle in cascades {
        let (spec, digest) = (&bundle.cascade().spec, bundle.cascade().digest());
        for (position, stage) in spec.stages.iter().enumerate() {
            if !wanted.is_empty() && !wanted.contains(&stage.name) {
                continue;
            }
            let pool = PoolId { stage: stage.name.clone(), digest };
            let folder = bundle.root().join(&stage.folder);
            let (usual, tokens) =
                (StageSettings::defaults(spec, position)?, spec.encoder.max_length as usize);
            served.push((position, Served { pool, size: stage.size, folder, usual, tokens }));
        }
    }
    if served.is_empty() {
        return Err(UserError::new(
            Code::InvalidArgument,
            "NOTHING_TO_SERVE",
            "no cascade is given; accepted: at least one",
        ));
    }
    served.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
    Ok(served.into_iter().map(|(_, stage)| stage).collect())
}
