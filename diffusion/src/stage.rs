//! One stage of a cascade: a network with its schedule, from text and noise to pictures.

use std::ops::ControlFlow;
use std::path::Path;

use darkroom_core::sampling::Sampling;
use tch::Tensor;

use crate::denoise::{Denoiser, Start, augment, predict_all, upload};
use crate::device::{LoadOptions, Placement, give_back, place_network};
use crate::error::{LoadError, RenderError};
use crate::graphs::Graphs;
use crate::host::HostTensor;
use crate::image_to_image::{self, begin, repainted};
use crate::kernels::OneThread;
use crate::noise::{NoiseKey, Purpose, fill_normals};
use crate::sampler::{PlanOptions, SamplerPlan};
use crate::schedule::{Prediction, Schedule};
use crate::settings::{RowInput, SamplerSettings, StageDescription, StepReport};
use crate::texts::Texts;
use crate::timings::{Part, timed};
use crate::unet::{Interface, LoadedNetwork, Network};

/// The schedule's file in a stage's folder.
pub(crate) const SCHEDULER: &str = "scheduler/scheduler_config.json";
/// The schedule of the noise on the low-resolution input, in the same folder.
pub(crate) const NOISING_SCHEDULER: &str = "image_noising_scheduler/scheduler_config.json";

/// A stage in memory, ready to render. It belongs to one thread at a time.
pub struct StageModel {
    name: String,
    loaded: LoadedNetwork,
    schedule: Schedule,
    /// The schedule of the noise on the low-resolution input; super-resolution stages only.
    augmentation: Option<Schedule>,
    placement: Placement,
    graphs: Graphs,
    texts: Texts,
}

impl StageModel {
    /// Loads `unet/`, `scheduler/` and, for super-resolution, `image_noising_scheduler/` from a
    /// stage's folder.
    ///
    /// `stage_name` decides the stage's noise: the same name and seed give the same picture.
    pub fn load(
        stage_dir: &Path,
        stage_name: &str,
        options: &LoadOptions,
    ) -> Result<Self, LoadError> {
        let placement = place_network(options)?;
        let _no_grad = tch::no_grad_guard();
        let schedule = Schedule::load(&stage_dir.join(SCHEDULER))?;
        let loaded = Network::load(&stage_dir.join("unet"), placement)
            .map_err(|error| error.in_folder(stage_dir))?;
        let interface = &loaded.interface;
        check_parts(stage_dir, interface, &schedule)?;
        let augmentation = (interface.in_channels == 6)
            .then(|| Schedule::load(&stage_dir.join(NOISING_SCHEDULER)))
            .transpose()?;
        tracing::info!(
            stage = stage_name,
            model.parameters = loaded.parameters,
            device.class = placement.class(),
            "stage loaded"
        );
        let graphs = Graphs::new(placement, options.eager);
        let name = stage_name.to_owned();
        Ok(Self {
            name,
            loaded,
            schedule,
            augmentation,
            placement,
            graphs,
            texts: Texts::default(),
        })
    }

    /// Frees it, and gives its memory back to the device.
    pub fn unload(self) {
        let placement = self.placement;
        drop(self);
        give_back(placement);
    }

    /// The description of the stage.
    pub fn describe(&self) -> StageDescription {
        let interface = &self.loaded.interface;
        let (default_height, default_width) = interface.sample_size.unwrap_or((64, 64));
        let mut ignored_keys = self.loaded.ignored_keys.clone();
        ignored_keys
            .extend(self.schedule.ignored_keys.iter().map(|key| format!("scheduler.{key}")));
        StageDescription {
            name: self.name.clone(),
            class: self.loaded.network.class_name(),
            in_channels: interface.in_channels,
            out_channels: interface.out_channels,
            text_dim: interface.text_dim,
            takes_low_res: self.augmentation.is_some(),
            default_width,
            default_height,
            size_multiple: interface.size_multiple,
            parameters: self.loaded.parameters,
            dtype: self.placement.dtype_name().to_owned(),
            device: self.placement.engine.device_name(),
            ignored_keys,
        }
    }

    /// How many recorded CUDA graphs it has, or why it makes none.
    pub fn graphs(&self) -> Result<usize, String> {
        self.graphs.kept()
    }

    /// The class of device within which one row always has the same bytes, for manifests: hardware,
    /// instruction set, threads, number format, and how many images share a forward pass.
    pub fn row_class(&self) -> String {
        format!("{}/{}", self.placement.class(), self.placement.describe_images())
    }

    /// Renders every row, each `[3, height, width]` in −1…1, in the given order.
    ///
    /// `on_step` is called after every step of the whole call and may stop it with `Break`. A row's
    /// bytes depend only on its own input, the settings and [`Self::row_class`], never on other
    /// rows.
    ///
    /// # Errors
    /// [`RenderError::Invalid`] names a setting or input that does not fit;
    /// [`RenderError::NonFinite`] the first row that came out with NaN or an infinity;
    /// [`RenderError::OutOfMemory`] asks for fewer rows.
    pub fn render(
        &self,
        settings: &SamplerSettings,
        rows: &[RowInput],
        on_step: &mut dyn FnMut(StepReport) -> ControlFlow<()>,
    ) -> Result<Vec<HostTensor>, RenderError> {
        timed(Part::Sampler, || match self.run(settings, rows, on_step) {
            // The missing memory may be what recorded graphs keep for themselves.
            Err(RenderError::OutOfMemory(_)) if self.graphs.give_back() => {
                self.run(settings, rows, on_step)
            }
            result => result,
        })
    }

    fn run(
        &self,
        settings: &SamplerSettings,
        rows: &[RowInput],
        on_step: &mut dyn FnMut(StepReport) -> ControlFlow<()>,
    ) -> Result<Vec<HostTensor>, RenderError> {
        let _no_grad = tch::no_grad_guard();
        // A few operations are left to libtorch. On one thread their bits do not depend on the
        // number of threads.
        let _one = self.placement.engine.rows_are_independent().then(OneThread::enter);
        self.check(settings, rows)?;
        let plan = self.plan(&settings.sampling)?;
        let group = self.images_per_forward(settings);
        let groups: Vec<&[RowInput]> = rows.chunks(group).collect();
        let shared = self.placement.engine.groups_per_pass(settings.width * settings.height);
        let mut denoisers = Vec::with_capacity(groups.len());
        for images in &groups {
            let start = self.start(settings, &plan, images, group)?;
            denoisers.push(self.denoiser(&plan, images, &start)?.with_graphs(&self.graphs));
        }
        let steps = plan.timesteps.len();
        for (index, timestep) in plan.timesteps.iter().enumerate() {
            let outputs = predict_all(&mut denoisers, index, shared)?;
            for ((denoiser, images), output) in denoisers.iter_mut().zip(&groups).zip(&outputs) {
                let draw = || self.noise(settings, images, group, Purpose::Step, index as u32);
                denoiser.advance(index, output, draw)?;
            }
            let report = StepReport { step: index + 1, steps, timestep: *timestep };
            if on_step(report).is_break() {
                return Err(RenderError::Interrupted);
            }
        }
        let mut pictures = Vec::with_capacity(rows.len());
        for (denoiser, images) in denoisers.iter().zip(&groups) {
            for position in 0..images.len() {
                let mut picture =
                    HostTensor::from_tensor(&denoiser.x().f_select(0, position as i64)?)?;
                if !picture.is_finite() {
                    return Err(RenderError::NonFinite { row: pictures.len() });
                }
                picture.data.iter_mut().for_each(|value| *value = value.clamp(-1.0, 1.0));
                pictures.push(picture);
            }
        }
        Ok(pictures)
    }

    fn denoiser<'a>(
        &'a self,
        plan: &'a SamplerPlan,
        images: &[RowInput],
        start: &Start,
    ) -> Result<Denoiser<'a>, RenderError> {
        let network = &self.loaded.network;
        // If a row's bits depend on that row alone, images with the same text share what the
        // network computes from it.
        let [row] = images else { return Ok(Denoiser::new(network, plan, start)?) };
        if !self.placement.engine.rows_are_independent() {
            return Ok(Denoiser::new(network, plan, start)?);
        }
        let level = start.noise_level;
        let text = self.texts.of(&row.text, level, || network.condition(&start.text, level))?;
        let negative = row.negative.as_ref().zip(start.negative.as_ref());
        let negative = negative
            .map(|(row, negative)| self.texts.of(row, level, || network.condition(negative, level)))
            .transpose()?;
        Ok(Denoiser::of_texts(network, plan, start, text, negative.as_ref())?)
    }

    pub(crate) fn plan(&self, sampling: &Sampling) -> Result<SamplerPlan, RenderError> {
        let has_variance = self.loaded.interface.out_channels == 6;
        SamplerPlan::new(&self.schedule, PlanOptions { sampling, has_variance })
    }

    /// How many images share a forward pass; fewer are padded.
    pub(crate) fn images_per_forward(&self, settings: &SamplerSettings) -> usize {
        self.placement.images_per_pass(settings.width * settings.height, self.loaded.parameters)
    }

    pub(crate) fn network(&self) -> &Network {
        &self.loaded.network
    }

    pub(crate) fn placement(&self) -> Placement {
        self.placement
    }

    /// ᾱ of the noise on the low-resolution input.
    pub(crate) fn augmentation_alpha(&self, noise_level: u32) -> Option<f64> {
        self.augmentation.as_ref().map(|schedule| schedule.alpha_cumprod(i64::from(noise_level)))
    }

    /// The class label of a noise level; `None` for networks without one.
    pub(crate) fn class_label(&self, noise_level: Option<u32>) -> Option<u32> {
        noise_level.filter(|_| self.loaded.interface.takes_noise_level)
    }

    fn check(&self, settings: &SamplerSettings, rows: &[RowInput]) -> Result<(), RenderError> {
        let interface = &self.loaded.interface;
        let multiple = interface.size_multiple;
        for (field, size) in [("width", settings.width), ("height", settings.height)] {
            if size == 0 || size % multiple != 0 || size > 8192 {
                let accepted = format!("{size}; accepted: a multiple of {multiple} up to 8192");
                return Err(RenderError::invalid(field, accepted));
            }
        }
        if !settings.sampling.guidance_scale.is_finite() {
            let message =
                format!("{}; accepted: a finite number", settings.sampling.guidance_scale);
            return Err(RenderError::invalid("guidance_scale", message));
        }
        match (&self.augmentation, settings.sampling.noise_level) {
            (None, None) => {}
            (Some(schedule), Some(level)) if (level as usize) < schedule.config.train_timesteps => {
            }
            (Some(schedule), level) => {
                let most = schedule.config.train_timesteps - 1;
                let level = level.map_or_else(|| "absent".to_owned(), |level| level.to_string());
                let message = format!("{level}; accepted: 0 to {most}");
                return Err(RenderError::invalid("noise_level", message));
            }
            (None, Some(level)) => {
                let message =
                    format!("{level}; stage {} takes no low-resolution picture", self.name);
                return Err(RenderError::invalid("noise_level", message));
            }
        }
        let Some(first) = rows.first() else { return Ok(()) };
        let length = first.text.shape.first().copied().unwrap_or(0);
        let text_shape = [length.max(1), interface.text_dim];
        for row in rows {
            row.text.expect("text", &text_shape)?;
            match &row.negative {
                Some(negative) if settings.sampling.guided() => {
                    negative.expect("negative", &text_shape)?
                }
                None if settings.sampling.guided() => {
                    return Err(RenderError::invalid(
                        "negative",
                        "needed where the guidance weight is not 1",
                    ));
                }
                _ => {}
            }
            match (&row.low_res, &self.augmentation) {
                (Some(low_res), Some(_)) => {
                    let shape = [3, first_extent(low_res, 1), first_extent(low_res, 2)];
                    let shape = if low_res.shape.contains(&0) { [3, 1, 1] } else { shape };
                    low_res.expect("low_res", &shape)?;
                }
                (None, None) => {}
                (Some(_), None) => {
                    let message = format!("stage {} takes no low-resolution picture", self.name);
                    return Err(RenderError::invalid("low_res", message));
                }
                (None, Some(_)) => {
                    return Err(RenderError::invalid(
                        "low_res",
                        "needed by a super-resolution stage",
                    ));
                }
            }
            image_to_image::check(settings, row)?;
        }
        Ok(())
    }

    /// The first tensors of `group` images; those beyond `images` are zero.
    fn start(
        &self,
        settings: &SamplerSettings,
        plan: &SamplerPlan,
        images: &[RowInput],
        group: usize,
    ) -> Result<Start, RenderError> {
        let text: Vec<Option<&HostTensor>> = images.iter().map(|row| Some(&row.text)).collect();
        let negative: Vec<Option<&HostTensor>> =
            images.iter().map(|row| row.negative.as_ref()).collect();
        let low_res =
            match settings.sampling.noise_level.and_then(|level| self.augmentation_alpha(level)) {
                None => None,
                Some(alpha) => {
                    let noise = self.noise(settings, images, group, Purpose::Augmentation, 0)?;
                    Some(self.augmented(images, &noise, alpha)?)
                }
            };
        let (x, mask) = self.first_x(settings, plan, images, group)?;
        Ok(Start {
            text: self.stack(&text, group)?,
            negative: settings
                .sampling
                .guided()
                .then(|| self.stack(&negative, group))
                .transpose()?,
            low_res,
            noise_level: self.class_label(settings.sampling.noise_level),
            x,
            mask,
        })
    }

    /// x at the first timestep, and where it may change.
    fn first_x(
        &self,
        settings: &SamplerSettings,
        plan: &SamplerPlan,
        images: &[RowInput],
        group: usize,
    ) -> Result<(Tensor, Option<Tensor>), RenderError> {
        if settings.sampling.strength.is_none() {
            return Ok((self.noise(settings, images, group, Purpose::Init, 0)?, None));
        }
        let pictures: Vec<Option<&HostTensor>> =
            images.iter().map(|row| row.init_image.as_ref()).collect();
        let pictures = self.stack(&pictures, group)?;
        let noise = self.noise(settings, images, group, Purpose::ImageToImage, 0)?;
        let mask = self.mask(settings, images, group)?;
        Ok((begin(&pictures, &noise, plan.level(0), mask.as_ref())?, mask))
    }

    /// Where x may change, bool `[group, 3, height, width]`; `None` if everywhere.
    fn mask(
        &self,
        settings: &SamplerSettings,
        images: &[RowInput],
        group: usize,
    ) -> Result<Option<Tensor>, RenderError> {
        if images.iter().all(|row| row.mask.is_none()) {
            return Ok(None);
        }
        let size = settings.height * settings.width;
        let mut values = vec![1.0; size * group];
        for (place, row) in values.chunks_mut(size).zip(images) {
            if let Some(mask) = &row.mask {
                place.copy_from_slice(&mask.data);
            }
        }
        let shape = [group as i64, 1, settings.height as i64, settings.width as i64];
        Ok(Some(repainted(&upload(&values, &shape, self.placement.device())?)?))
    }

    /// Each image's low-resolution picture separately, because their sizes may differ.
    fn augmented(
        &self,
        images: &[RowInput],
        noise: &Tensor,
        alpha: f64,
    ) -> Result<Tensor, RenderError> {
        let mut rows = Vec::with_capacity(images.len());
        for (position, image) in images.iter().enumerate() {
            let Some(low_res) = &image.low_res else { continue };
            let shape: Vec<i64> =
                [1].into_iter().chain(low_res.shape.iter().map(|extent| *extent as i64)).collect();
            let picture = upload(&low_res.data, &shape, self.placement.device())?;
            rows.push(augment(&picture, &noise.f_narrow(0, position as i64, 1)?, alpha)?);
        }
        let missing = noise.size()[0] - rows.len() as i64;
        if missing > 0 {
            rows.push(noise.f_narrow(0, 0, missing)?.f_zeros_like()?);
        }
        Ok(Tensor::f_cat(&rows, 0)?)
    }

    /// Rows of one shape on the device, padded with zeros.
    fn stack(&self, rows: &[Option<&HostTensor>], group: usize) -> Result<Tensor, RenderError> {
        let shape = rows.iter().flatten().next().map(|row| row.shape.clone()).unwrap_or_default();
        let size: usize = shape.iter().product();
        let mut values = vec![0.0; size * group];
        for (place, row) in values.chunks_mut(size.max(1)).zip(rows) {
            if let Some(row) = row {
                place.copy_from_slice(&row.data);
            }
        }
        let shape: Vec<i64> = [group].iter().chain(&shape).map(|extent| *extent as i64).collect();
        Ok(upload(&values, &shape, self.placement.device())?)
    }

    /// Each image's own noise, `[group, 3, height, width]`; zero in padding rows.
    fn noise(
        &self,
        settings: &SamplerSettings,
        images: &[RowInput],
        group: usize,
        purpose: Purpose,
        step: u32,
    ) -> Result<Tensor, tch::TchError> {
        let size = 3 * settings.height * settings.width;
        let mut values = vec![0.0; size * group];
        timed(Part::Noise, || {
            let key =
                |image: &RowInput| NoiseKey { seed: image.seed, stage: &self.name, purpose, step };
            fill_normals(images.iter().map(key).zip(values.chunks_mut(size)).collect());
        });
        let shape = [group as i64, 3, settings.height as i64, settings.width as i64];
        upload(&values, &shape, self.placement.device())
    }
}

fn first_extent(tensor: &HostTensor, dimension: usize) -> usize {
    tensor.shape.get(dimension).copied().unwrap_or(1)
}

/// Checks that a network and its schedule fit together.
pub(crate) fn check_parts(
    stage_dir: &Path,
    interface: &Interface,
    schedule: &Schedule,
) -> Result<(), LoadError> {
    let schedule_path = stage_dir.join(SCHEDULER);
    let refuse = |path: &Path, key: &str, value: String, accepted: &str| LoadError::Unsupported {
        path: path.to_owned(),
        key: key.to_owned(),
        value,
        accepted: accepted.to_owned(),
    };
    let network_path = stage_dir.join("unet/config.json");
    if !matches!(interface.in_channels, 3 | 6) {
        let accepted = "3, or 6 with a low-resolution picture";
        return Err(refuse(
            &network_path,
            "in_channels",
            interface.in_channels.to_string(),
            accepted,
        ));
    }
    if !matches!(interface.out_channels, 3 | 6) {
        let accepted = "3, or 6 with a variance";
        return Err(refuse(
            &network_path,
            "out_channels",
            interface.out_channels.to_string(),
            accepted,
        ));
    }
    if interface.out_channels == 6 && schedule.config.prediction == Prediction::Velocity {
        // The reference fails in this case.
        let accepted = "epsilon or sample for a network with a variance";
        return Err(refuse(
            &schedule_path,
            "prediction_type",
            "\"v_prediction\"".to_owned(),
            accepted,
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
