//! How long GetJob and a page of ListImages take, over gRPC, for `make bench-farm`.
//!
//! `api_latency ADDRESS JOB IMAGES SECONDS A_SECOND`: asks for both, a page of 100 somewhere in the
//! job, so many times a second, one after the other, and prints one line of JSON: milliseconds of
//! each at the 50th and the 99th percentile.

#![expect(clippy::print_stdout, reason = "an internal tool; nobody closes its output early")]

use std::time::{Duration, Instant};

use darkroom_proto::v1::{GetJobRequest, ListImagesRequest, farm_client::FarmClient};
use tokio::time::{MissedTickBehavior, interval};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, job, images, seconds, rate] = arguments.as_slice() else {
        return Err("usage: api_latency ADDRESS JOB IMAGES SECONDS A_SECOND".into());
    };
    let (lasts, rate): (f64, f64) = (seconds.parse()?, rate.parse()?);
    let mut farm = FarmClient::connect(format!("http://{address}")).await?;
    let get = GetJobRequest { id: job.clone() };
    let images: u64 = images.parse()?;
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut gets, mut pages) = (Vec::new(), Vec::new());
    let began = Instant::now();
    // A stride that is prime to most sizes, so that the pages are everywhere.
    let mut place = 0;
    while began.elapsed().as_secs_f64() < lasts {
        ticks.tick().await;
        let asked = Instant::now();
        farm.get_job(get.clone()).await?;
        gets.push(asked.elapsed());
        place = (place + 7_919) % images;
        let page = ListImagesRequest {
            job_id: job.clone(),
            page_size: 100,
            start_index: place,
            ..ListImagesRequest::default()
        };
        let asked = Instant::now();
        farm.list_images(page).await?;
        pages.push(asked.elapsed());
    }
    println!("{{\"get\": {}, \"page\": {}}}", percentiles(&mut gets), percentiles(&mut pages));
    Ok(())
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: usize| {
        let time = times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
        time.map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    format!("[{:.2}, {:.2}]", at(50), at(99))
}
