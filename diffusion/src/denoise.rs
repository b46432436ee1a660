//! The loop of a stage, for the images of one forward pass: predict, guide, step.
//!
//! A [`Denoiser`] owns x, the conditioning and the sampler's memory. Its caller decides when the
//! next step runs and where the noise comes from (seeds in a render, a recording in a trace).

use tch::{Device, Kind, TchError, Tensor};

use crate::graphs::{Graphs, Question};
use crate::guidance::guide;
use crate::image_to_image::keep;
use crate::kernels::beside;
use crate::layers::{Torch, channels_last};
use crate::sampler::{History, SamplerPlan};
use crate::unet::{Conditioning, Network};

/// The inputs of the images of one pass. Every tensor is f32 on the device, with `images` rows.
pub(crate) struct Start {
    /// `[images, length, dimension]`.
    pub(crate) text: Tensor,
    /// The same for the negative texts; needed if any step is guided.
    pub(crate) negative: Option<Tensor>,
    /// Noised low-resolution pictures at full size, `[images, 3, height, width]`.
    pub(crate) low_res: Option<Tensor>,
    /// The class label of all rows.
    pub(crate) noise_level: Option<u32>,
    /// x at the first timestep, `[images, 3, height, width]`.
    pub(crate) x: Tensor,
    /// True where x may change, bool `[images, 3, height, width]`; everywhere if absent.
    pub(crate) mask: Option<Tensor>,
}

/// Images between noise and finished pictures.
pub(crate) struct Denoiser<'a> {
    network: &'a Network,
    graphs: Option<&'a Graphs>,
    plan: &'a SamplerPlan,
    /// Conditioning of the unconditional rows, then the conditional ones; if no step is guided,
    /// only the latter.
    conditioning: Conditioning,
    /// Conditioning of the conditional rows alone, if only some steps are guided.
    alone: Option<Conditioning>,
    low_res: Option<Tensor>,
    x: Tensor,
    mask: Option<Tensor>,
    history: History,
    /// The network's deeper features at the last step that computed them, if they are reused.
    deep: Option<Tensor>,
}

impl<'a> Denoiser<'a> {
    pub(crate) fn new(network: &'a Network, plan: &'a SamplerPlan, start: &Start) -> Torch<Self> {
        let guided = guided_steps(plan);
        let text = match &start.negative {
            Some(negative) if guided > 0 => Tensor::f_cat(&[negative, &start.text], 0)?,
            _ => start.text.shallow_clone(),
        };
        let mixed = guided > 0 && guided < plan.timesteps.len();
        let conditioning = network.condition(&text, start.noise_level)?;
        let alone = mixed.then(|| network.condition(&start.text, start.noise_level)).transpose()?;
        Self::conditioned(network, plan, start, (conditioning, alone))
    }

    /// The same, when the text and the negative text were put through the network earlier, each by
    /// itself.
    pub(crate) fn of_texts(
        network: &'a Network,
        plan: &'a SamplerPlan,
        start: &Start,
        text: Conditioning,
        negative: Option<&Conditioning>,
    ) -> Torch<Self> {
        let conditioning = match negative {
            Some(negative) if guided_steps(plan) > 0 => {
                let both = Conditioning::join(&[negative, &text])?;
                (both, (guided_steps(plan) < plan.timesteps.len()).then_some(text))
            }
            _ => (text, None),
        };
        Self::conditioned(network, plan, start, conditioning)
    }

    fn conditioned(
        network: &'a Network,
        plan: &'a SamplerPlan,
        start: &Start,
        (conditioning, alone): (Conditioning, Option<Conditioning>),
    ) -> Torch<Self> {
        Ok(Self {
            network,
            graphs: None,
            plan,
            conditioning,
            alone,
            low_res: start.low_res.as_ref().map(channels_last).transpose()?,
            x: channels_last(&start.x)?,
            mask: start.mask.as_ref().map(channels_last).transpose()?,
            history: History::default(),
            deep: None,
        })
    }

    /// Uses passes that may be recorded and replayed.
    pub(crate) fn with_graphs(self, graphs: &'a Graphs) -> Self {
        Self { graphs: Some(graphs), ..self }
    }

    /// x after the steps so far, `[images, 3, height, width]`, channels-last.
    pub(crate) fn x(&self) -> &Tensor {
        &self.x
    }

    /// The network's raw output at step `index`: the unconditional rows, then the conditional ones;
    /// only the latter if the step is not guided. All steps of one kind have the same shape,
    /// whatever other steps there are.
    pub(crate) fn predict(&mut self, index: usize) -> Torch<Tensor> {
        let (rows, conditioning) = self.question(index)?;
        let (timestep, deep) = (self.plan.timesteps[index], self.deep_at(index));
        let (output, deep) = match self.graphs {
            None => self.network.forward(&rows, timestep, conditioning, deep)?,
            Some(graphs) => {
                let keeps_deep = self.plan.reuses() && deep.is_none();
                let question = Question { x: &rows, timestep, conditioning, deep, keeps_deep };
                graphs.pass(self.network, &question)?
            }
        };
        self.keep_deep(index, &deep);
        Ok(output)
    }

    /// The deeper features that step `index` reuses, if it does.
    fn deep_at(&self, index: usize) -> Option<&Tensor> {
        self.deep.as_ref().filter(|_| self.plan.passes[index].reuses)
    }

    /// Keeps what step `index` computed for later steps.
    fn keep_deep(&mut self, index: usize, deep: &Tensor) {
        if self.plan.reuses() && !self.plan.passes[index].reuses {
            self.deep = Some(deep.shallow_clone());
        }
    }

    /// The network's input at step `index`.
    fn question(&self, index: usize) -> Torch<(Tensor, &Conditioning)> {
        let joined = match &self.low_res {
            Some(low_res) if self.network.engine().packs_weights() => {
                beside(&self.x, low_res, self.network.kind())?
            }
            Some(low_res) => Tensor::f_cat(&[&self.x, low_res], 1)?,
            None => self.x.shallow_clone(),
        };
        let guided = self.plan.guided(index);
        let rows = if guided { Tensor::f_cat(&[&joined, &joined], 0)? } else { joined };
        let conditioning = self.alone.as_ref().filter(|_| !guided).unwrap_or(&self.conditioning);
        Ok((rows, conditioning))
    }

    /// Finishes step `index` with the network's output. `draw` is called only if the step adds
    /// noise.
    pub(crate) fn advance(
        &mut self,
        index: usize,
        output: &Tensor,
        draw: impl FnOnce() -> Torch<Tensor>,
    ) -> Torch<()> {
        let guided = guide(output, self.plan.guidance[index])?;
        let noise =
            if self.plan.draws_noise(index) { Some(channels_last(&draw()?)?) } else { None };
        let next = self.plan.step(index, &self.x, &guided, noise.as_ref(), &mut self.history)?;
        self.x = keep(next, &self.x, self.mask.as_ref())?;
        Ok(())
    }
}

fn guided_steps(plan: &SamplerPlan) -> usize {
    (0..plan.timesteps.len()).filter(|index| plan.guided(*index)).count()
}

/// The network's raw outputs for several denoisers of one plan at step `index`.
///
/// If a row's bits depend on that row alone, up to `most` denoisers share a pass; otherwise each
/// has one pass.
pub(crate) fn predict_all(
    denoisers: &mut [Denoiser<'_>],
    index: usize,
    most: usize,
) -> Torch<Vec<Tensor>> {
    let mut outputs = Vec::with_capacity(denoisers.len());
    for group in denoisers.chunks_mut(most.max(1)) {
        if group.len() == 1 || !group[0].network.engine().rows_are_independent() {
            for denoiser in group {
                outputs.push(denoiser.predict(index)?);
            }
            continue;
        }
        let questions: Vec<(Tensor, &Conditioning)> =
            group.iter().map(|denoiser| denoiser.question(index)).collect::<Torch<_>>()?;
        let rows: Vec<&Tensor> = questions.iter().map(|(rows, _)| rows).collect();
        let conditioning: Vec<&Conditioning> =
            questions.iter().map(|(_, conditioning)| *conditioning).collect();
        let timestep = group[0].plan.timesteps[index];
        let joined = Conditioning::join(&conditioning)?;
        // All of them did the same steps, so all have features to reuse, or none has.
        let deep: Option<Vec<&Tensor>> =
            group.iter().map(|denoiser| denoiser.deep_at(index)).collect();
        let deep = deep.map(|deep| Tensor::f_cat(&deep, 0)).transpose()?;
        let question = Tensor::f_cat(&rows, 0)?;
        let (output, deep) =
            group[0].network.forward(&question, timestep, &joined, deep.as_ref())?;
        let counts: Vec<i64> = rows.iter().map(|rows| rows.size()[0]).collect();
        let mut from = 0;
        for (denoiser, count) in group.iter_mut().zip(counts) {
            outputs.push(output.f_narrow(0, from, count)?);
            denoiser.keep_deep(index, &deep.f_narrow(0, from, count)?);
            from += count;
        }
    }
    Ok(outputs)
}

/// Noise-conditioning augmentation (Ho et al. 2022, "Cascaded diffusion models", section 4.2). The
/// low-resolution picture, resized bilinearly with aligned corners, keeps √ᾱ of itself and gets
/// √(1−ᾱ) of noise.
pub(crate) fn augment(low_res: &Tensor, noise: &Tensor, alpha_cumprod: f64) -> Torch<Tensor> {
    let (_, _, height, width) = noise.size4()?;
    let resized = low_res.f_upsample_bilinear2d([height, width], true, None, None)?;
    let noise = noise.f_mul_scalar((1.0 - alpha_cumprod).sqrt())?;
    resized.f_mul_scalar(alpha_cumprod.sqrt())?.f_add_(&noise)
}

/// Host values as an f32 tensor on the device.
pub(crate) fn upload(values: &[f32], shape: &[i64], device: Device) -> Result<Tensor, TchError> {
    debug_assert_eq!(values.len() as i64, shape.iter().product::<i64>());
    Tensor::f_from_slice(values)?.f_reshape(shape)?.f_to_kind(Kind::Float)?.f_to_device(device)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use darkroom_core::sampling::{GuidanceSchedule, Sampler, Sampling};

    use super::*;
    use crate::device::{DeviceChoice, DtypeChoice, LoadOptions};
    use crate::stage::StageModel;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn model(stage: &str, dtype: DtypeChoice, libtorch_only: bool) -> StageModel {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(stage);
        let options = LoadOptions {
            device: DeviceChoice::Cpu,
            dtype,
            libtorch_only,
            ..LoadOptions::default()
        };
        StageModel::load(&folder, "stage", &options).unwrap()
    }

    #[test]
    fn given_the_deeper_features_of_the_same_step_a_network_predicts_the_same() {
        let _no_grad = tch::no_grad_guard();
        for stage in [
            "example/base",
            "example/sr1",
            "deep/base",
            "deep/sr",
            "deep/efficient",
            "odd/base",
            "odd/plain",
            "odd/efficient",
        ] {
            for libtorch_only in [false, true] {
                let model = model(stage, DtypeChoice::F32, libtorch_only);
                let (network, size) =
                    (model.network(), model.describe().size_multiple.max(16) as i64);
                tch::manual_seed(3);
                let (text_dim, channels) =
                    (model.describe().text_dim as i64, model.describe().in_channels as i64);
                let level = model.class_label(Some(9));
                let conditioning =
                    network.condition(&Tensor::randn([2, 7, text_dim], CPU), level).unwrap();
                let x = channels_last(&Tensor::randn([2, channels, size, size], CPU)).unwrap();
                let (whole, deep) = network.forward(&x, 500, &conditioning, None).unwrap();
                let (again, same) = network.forward(&x, 500, &conditioning, Some(&deep)).unwrap();
                assert_eq!(again, whole, "{stage}, libtorch only: {libtorch_only}");
                assert_eq!(same, deep);
                let (other, _) =
                    network.forward(&x, 500, &conditioning, Some(&(&deep + 1.0))).unwrap();
                assert_ne!(other, whole, "{stage}: the features matter");
            }
        }
    }

    #[test]
    fn features_are_computed_at_every_so_many_th_step_and_when_guidance_begins_or_ends() {
        let _no_grad = tch::no_grad_guard();
        let model = model("example/base", DtypeChoice::F32, false);
        let sampling = Sampling {
            guidance_scale: 3.0,
            guidance_schedule: GuidanceSchedule::Steps { from: 0.0, to: 58.0 },
            cache_interval: 3,
            ..Sampling::plain(Sampler::Ddim, 7)
        };
        let plan = model.plan(&sampling).unwrap();
        let guided: Vec<bool> = (0..7).map(|index| plan.guided(index)).collect();
        assert_eq!(guided, [true, true, true, true, true, false, false]);
        tch::manual_seed(5);
        let start = Start {
            text: Tensor::randn([1, 12, 32], CPU),
            negative: Some(Tensor::randn([1, 12, 32], CPU)),
            low_res: None,
            noise_level: None,
            x: Tensor::randn([1, 3, 16, 16], CPU),
            mask: None,
        };
        let mut denoiser = Denoiser::new(model.network(), &plan, &start).unwrap();
        let mut computed = Vec::new();
        for index in 0..7 {
            computed.push(denoiser.deep_at(index).is_none());
            let output = denoiser.predict(index).unwrap();
            denoiser.advance(index, &output, || Ok(Tensor::new())).unwrap();
        }
        assert_eq!(computed, [true, false, false, true, false, true, true]);
    }

    /// Padding on a GPU relies on this: in a pass with a fixed number of rows, other rows do not
    /// change a row's bits.
    #[test]
    fn a_padded_pass_gives_a_row_the_bits_of_a_full_one() {
        let _no_grad = tch::no_grad_guard();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/example/base");
        for dtype in [DtypeChoice::F32, DtypeChoice::Bf16] {
            let options =
                LoadOptions { device: DeviceChoice::Cpu, dtype, ..LoadOptions::default() };
            let model = StageModel::load(&folder, "base", &options).unwrap();
            let sampling = Sampling { guidance_scale: 3.0, ..Sampling::plain(Sampler::Ddim, 2) };
            let plan = model.plan(&sampling).unwrap();
            let render = |keep: i64| {
                tch::manual_seed(5);
                let f32_cpu = (Kind::Float, Device::Cpu);
                let mask = Tensor::arange(4, f32_cpu).lt(keep).to_kind(Kind::Float);
                let input = |shape: &[i64]| {
                    let ones = vec![1_i64; shape.len() - 1];
                    Tensor::randn(shape, f32_cpu) * mask.view([vec![4], ones].concat().as_slice())
                };
                let start = Start {
                    text: input(&[4, 12, 32]),
                    negative: Some(input(&[4, 12, 32])),
                    low_res: None,
                    noise_level: None,
                    x: input(&[4, 3, 16, 16]),
                    mask: None,
                };
                let mut denoiser = Denoiser::new(model.network(), &plan, &start).unwrap();
                for index in 0..2 {
                    let output = denoiser.predict(index).unwrap();
                    denoiser.advance(index, &output, || Ok(Tensor::new())).unwrap();
                }
                denoiser.x().narrow(0, 0, keep).contiguous()
            };
            let full = render(4);
            for keep in 1..4 {
                assert_eq!(render(keep), full.narrow(0, 0, keep), "{keep} of 4 rows, {dtype:?}");
            }
        }
    }
}
