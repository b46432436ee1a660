//! What an import made, how much memory it takes, and what it does not do.

use std::path::PathBuf;

use darkroom_artifacts::CascadeBundle;
use darkroom_core::shown::shown;
use darkroom_diffusion::WeightsSurvey;
use darkroom_runtime::terminal::shown_path;
use serde_json::{Value, json};

use super::{licence, link::Linked, parts::Parts};
use crate::{failure::Result, model_info::weights_document, model_info::weights_line, output};

/// All of it.
pub(super) struct Report {
    pub(super) name: String,
    pub(super) out: PathBuf,
    pub(super) parts: Parts,
    pub(super) bundle: CascadeBundle,
    pub(super) linked: Linked,
}

impl Report {
    fn rows(&self) -> impl Iterator<Item = (&str, &WeightsSurvey)> {
        let stages =
            self.parts.stages.iter().map(|stage| (stage.name.as_str(), &stage.survey.weights));
        std::iter::once(("encode", &self.parts.encoder.survey.weights)).chain(stages)
    }

    /// Parts that exist and are not run, with the reason.
    fn declined(&self) -> Vec<String> {
        let mut said = Vec::new();
        for folder in &self.parts.folders {
            for part in &folder.declined {
                let why = match part.as_str() {
                    "safety_checker" => {
                        "it judges finished pictures with a CLIP classifier, which Darkroom does \
                         not have; pictures are not judged"
                    }
                    "watermarker" => {
                        "it stamps a mark on finished pictures; pictures are not marked"
                    }
                    "feature_extractor" => "it only serves the safety checker",
                    _ => "no stage of a cascade uses it",
                };
                said.push(format!("{}: not run: {why}", shown_path(&folder.path.join(part))));
            }
        }
        said
    }

    /// For machines.
    pub(super) fn document(&self) -> Value {
        let rows: Vec<_> = self
            .rows()
            .map(|(part, weights)| {
                let mut document = weights_document(weights);
                document["part"] = json!(part);
                document
            })
            .collect();
        let document = json!({
            "name": self.name,
            "digest": self.bundle.cascade().digest(),
            "encoder_digest": self.bundle.cascade().encoder_digest(),
            "parts": rows,
            "files": self.bundle.cascade().files,
            "hard_links": self.linked.hard,
            "symbolic_links": self.linked.symbolic,
            "copied_bytes": self.linked.copied_bytes,
            "ignored_unknown_keys": self.parts.unknown_keys,
            "declined": self.declined(),
            "licence": if licence::is_deepfloyd(&self.parts) { licence::DEEPFLOYD.to_vec() } else { Vec::new() },
        });
        output::with_path(document, "folder", &self.out)
    }

    /// For people.
    pub(super) fn print(&self) -> Result<()> {
        output::line(&format!("{}  {}", shown(&self.name), self.bundle.cascade().digest()))?;
        let mut all: Option<WeightsSurvey> = None;
        for (part, weights) in self.rows() {
            output::line(&format!("  {}", weights_line(part, weights)))?;
            let others = shown(&weights.other_variants.join(", ")).into_owned();
            let others = if others.is_empty() { others } else { format!("; also there: {others}") };
            output::line(&format!("           from variant {}{others}", shown(&weights.variant)))?;
            all = Some(all.map_or_else(|| weights.clone(), |sum| sum.and(weights)));
        }
        if let Some(all) = all {
            output::line(&format!("  {}", weights_line("together", &all)))?;
        }
        output::line(
            "  A GPU computes in bf16, and so does a CPU with instructions for it; other CPUs \
             compute in f32. These numbers include what packing for Darkroom's own kernels adds \
             on this CPU. Pictures that are being computed take additional memory.",
        )?;
        let linked = self.linked;
        output::line(&format!(
            "{} files in {}: {} hard-linked, {} linked by name, {} copied ({} KiB)",
            self.bundle.cascade().files.len(),
            shown_path(&self.out),
            linked.hard,
            linked.symbolic,
            linked.copied,
            linked.copied_bytes / 1024
        ))?;
        if linked.symbolic > 0 {
            output::line(
                "The links by name need the folders they point to; --copy makes an independent \
                 cascade.",
            )?;
        }
        output::line(
            "Every tensor's name, shape, format and values match the configurations; hashes are \
             in SHA256SUMS.",
        )?;
        for key in &self.parts.unknown_keys {
            output::line(&format!("Taken as not there: {}", shown(key)))?;
        }
        for said in self.declined() {
            output::line(&format!("{said}."))?;
        }
        output::line(
            "Weights stored in fp16 are read and run in f32 or bf16; Darkroom does not compute in \
             fp16, because T5 overflows in it.",
        )?;
        if licence::is_deepfloyd(&self.parts) {
            for line in licence::DEEPFLOYD {
                output::line(line)?;
            }
        }
        Ok(())
    }
}
