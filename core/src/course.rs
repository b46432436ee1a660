//! Which stages the images of a job pass, and the size of each stage's output.

use crate::{
    cascade::{CascadeSpec, StageSpec},
    error::UserError,
    extent::Extent,
    request::SettingsRequest,
    shape::{AREA, Shapes, StageShape},
    start::Start,
};

/// The stages that a job's images pass.
pub(crate) struct Course<'a> {
    /// What images start from.
    pub(crate) start: Start,
    /// Position of the first stage in the cascade.
    pub(crate) begin: usize,
    /// In order, at least one.
    pub(crate) stages: &'a [StageSpec],
    /// Width and height of each stage's output, where it is not the cascade's square.
    pub(crate) extents: Vec<Option<Extent>>,
}

impl<'a> Course<'a> {
    /// Finds the stages that the request asks for and checks their sizes.
    pub(crate) fn plan(
        request: &SettingsRequest,
        cascade: &'a CascadeSpec,
    ) -> Result<Self, UserError> {
        let end = stages_up_to(request.size, cascade)?;
        let start: Start =
            if request.start.is_empty() { Start::Noise } else { request.start.parse()? };
        let (start, begin) = match (start, request.start_stage.as_str()) {
            (Start::LowRes, "") => {
                let names = names(&cascade.stages[1..end]);
                let message = format!(
                    "settings.start_stage is missing beside start low-res; accepted: {names}"
                );
                return Err(UserError::invalid("settings.start_stage", message));
            }
            (start, "") => (start, 0),
            (Start::Noise | Start::LowRes, stage) => {
                (Start::LowRes, start_stage(stage, &cascade.stages[..end])?)
            }
            (start, stage) => {
                let message = format!(
                    "settings.start_stage is {stage:?} beside start {start}, which begins with the first stage; \
                     accepted: one of the two"
                );
                return Err(UserError::invalid("settings.start_stage", message));
            }
        };
        let stages = &cascade.stages[begin..end];
        let before = begin.checked_sub(1).map(|before| &cascade.stages[before]);
        Ok(Self { start, begin, stages, extents: extents(request, before, stages)? })
    }
}

fn names(stages: &[StageSpec]) -> String {
    let names: Vec<_> = stages.iter().map(|stage| stage.name.as_str()).collect();
    if names.is_empty() {
        "none, because no super-resolution stage runs".to_owned()
    } else {
        names.join(", ")
    }
}

fn start_stage(name: &str, stages: &[StageSpec]) -> Result<usize, UserError> {
    stages.iter().position(|stage| stage.name.as_str() == name).filter(|position| *position > 0).ok_or_else(
        || {
            let names = names(&stages[1..]);
            let message = format!(
                "settings.start_stage is {name:?}; accepted: a super-resolution stage that runs: {names}"
            );
            UserError::invalid("settings.start_stage", message)
        },
    )
}

fn stages_up_to(size: u32, cascade: &CascadeSpec) -> Result<usize, UserError> {
    if size == 0 {
        return Ok(cascade.stages.len());
    }
    cascade
        .stages
        .iter()
        .position(|stage| stage.size == size)
        .map(|position| position + 1)
        .ok_or_else(|| {
            let sizes: Vec<_> = cascade.stages.iter().map(|stage| stage.size.to_string()).collect();
            UserError::invalid(
                "settings.size",
                format!("size is {size}; accepted: {}", sizes.join(", ")),
            )
        })
}

/// Width and height of each stage's output for the width and height that the request asks for.
fn extents(
    request: &SettingsRequest,
    before: Option<&StageSpec>,
    stages: &[StageSpec],
) -> Result<Vec<Option<Extent>>, UserError> {
    let last = stages.last().map_or(0, |stage| stage.size);
    let or_square = |edge: u32| if edge == 0 { last } else { edge };
    let wanted = Extent { width: or_square(request.width), height: or_square(request.height) };
    let square = Extent::square(last);
    if wanted == square {
        return Ok(vec![None; stages.len()]);
    }
    let field = if request.width == 0 || request.width == last {
        "settings.height"
    } else {
        "settings.width"
    };
    if wanted.area() > AREA * square.area() || wanted.area() * AREA < square.area() {
        let message = format!(
            "width and height are {wanted}; accepted: a quarter to four times the area of {square}; for smaller \
             pictures, a smaller size"
        );
        return Err(UserError::invalid(field, message));
    }
    let step = shapes(before, stages).step();
    let fits = |stage: &StageSpec| {
        let extent = wanted.scaled(last, stage.size)?;
        extent.is_multiple_of(stage.size_multiple.unwrap_or(1)).then_some(extent)
    };
    if before.is_some_and(|before| wanted.scaled(last, before.size).is_none()) {
        return Err(wrong_multiple(field, wanted, before.unwrap_or(&stages[0]), step));
    }
    let extent = |stage: &StageSpec| {
        fits(stage).map(Some).ok_or_else(|| wrong_multiple(field, wanted, stage, step))
    };
    stages.iter().map(extent).collect()
}

/// The shapes that all stages can make.
fn shapes(before: Option<&StageSpec>, stages: &[StageSpec]) -> Shapes {
    let before = before.map(|stage| StageShape { size: stage.size, multiple: 1 });
    let own = stages
        .iter()
        .map(|stage| StageShape { size: stage.size, multiple: stage.size_multiple.unwrap_or(1) });
    Shapes::of(before.into_iter().chain(own))
}

fn wrong_multiple(field: &str, wanted: Extent, stage: &StageSpec, step: u64) -> UserError {
    let multiple = stage.size_multiple.unwrap_or(1);
    let message = format!(
        "width and height are {wanted}, \
         which does not fit in stage {}, where they must be multiples of {multiple}; accepted: \
         multiples of {step}",
        stage.name
    );
    UserError::invalid(field, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cascade() -> CascadeSpec {
        let stage = |name: &str, size: u32, rest: &str| {
            format!(
                "[[stages]]\nname = {name:?}\nfolder = {name:?}\nsize = {size}\nsampler = \"ddim\"\nsteps = 4\n\
                 guidance_scale = 3.0\n{rest}\n"
            )
        };
        let text = format!(
            "format = 1\nname = \"c\"\n[encoder]\nfolder = \"e\"\ntokenizer = \"t\"\nmax_length = 8\n{}{}{}",
            stage("base", 64, "size_multiple = 8"),
            stage("sr256", 256, "size_multiple = 16\nnoise_level = 9"),
            stage("sr1024", 1024, "size_multiple = 16\nnoise_level = 9"),
        );
        CascadeSpec::parse(&text).expect("valid")
    }

    fn asked(size: u32, width: u32, height: u32) -> SettingsRequest {
        SettingsRequest { size, width, height, ..SettingsRequest::default() }
    }

    fn plan(request: &SettingsRequest) -> Result<Vec<String>, UserError> {
        let cascade = cascade();
        let course = Course::plan(request, &cascade)?;
        let line = |(stage, extent): (&StageSpec, &Option<Extent>)| {
            format!("{} {}", stage.name, extent.unwrap_or(Extent::square(stage.size)))
        };
        Ok(course.stages.iter().zip(&course.extents).map(line).collect())
    }

    #[test]
    fn every_stage_keeps_the_shape_of_the_last_one() {
        assert_eq!(
            plan(&asked(0, 1024, 512)),
            Ok(vec!["base 64x32".into(), "sr256 256x128".into(), "sr1024 1024x512".into()])
        );
        assert_eq!(
            plan(&asked(256, 0, 384)),
            Ok(vec!["base 64x96".into(), "sr256 256x384".into()])
        );
        assert_eq!(plan(&asked(64, 64, 64)), Ok(vec!["base 64x64".into()]));
    }

    #[test]
    fn a_size_that_does_not_divide_says_which_multiples_do() {
        for (request, stage, step) in [
            (asked(0, 1024, 520), "base", 128),
            (asked(0, 1000, 1024), "base", 128),
            (asked(256, 256, 200), "base", 32),
            (asked(64, 60, 64), "base", 8),
        ] {
            let error = plan(&request).expect_err("does not fit");
            assert!(error.message.contains(&format!("in stage {stage},")), "{error}");
            assert!(error.message.ends_with(&format!("multiples of {step}")), "{error}");
            // The accepted value in the message is really accepted.
            let edge = u32::try_from(step).expect("small");
            let near = |edge: u32, wanted: u32| wanted.next_multiple_of(edge);
            plan(&asked(request.size, near(edge, request.width), near(edge, request.height)))
                .expect("accepted");
        }
        let error = plan(&asked(0, 256, 128)).expect_err("too small");
        assert!(error.message.contains("smaller size"), "{error}");
        assert!(plan(&asked(64, 512, 512)).expect_err("too big").message.contains("four times"));
    }

    #[test]
    fn a_course_begins_with_the_stage_that_is_asked_for() {
        let from = |start: &str, stage: &str| SettingsRequest {
            start: start.to_owned(),
            start_stage: stage.to_owned(),
            ..asked(0, 1536, 1024)
        };
        assert_eq!(plan(&from("", "sr1024")), Ok(vec!["sr1024 1536x1024".into()]));
        assert_eq!(plan(&from("low-res", "sr256")).map(|stages| stages.len()), Ok(2));
        for (start, stage, says) in [
            ("", "base", "a super-resolution stage that runs: sr256, sr1024"),
            ("", "sr512", "sr256, sr1024"),
            ("low-res", "", "sr256, sr1024"),
            ("picture", "sr256", "one of the two"),
            ("photo", "", "noise, low-res, picture, masked"),
        ] {
            let error = plan(&from(start, stage)).expect_err(says);
            assert!(error.message.contains(says), "{error}");
        }
        let too_late = SettingsRequest { size: 64, ..from("", "sr256") };
        assert!(
            plan(&too_late).expect_err("does not run").message.contains("none"),
            "sr256 does not run"
        );
    }
}
