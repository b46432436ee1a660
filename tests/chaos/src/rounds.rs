//! The jobs that run during the faults: rounds of the fakes' jobs, and one real job at a time.

use std::collections::BTreeMap;

use anyhow::Result;
use darkroom_proto::v1;
use fastrand::Rng;
use tokio::task::JoinSet;

use crate::{
    load::{Client, Mood, Order},
    options::Options,
};

/// How a job ended, with its request's id, or why its client gave up.
pub(crate) type Ended = BTreeMap<String, Result<v1::Job>>;

/// Every job so far, and the clients of the jobs that have not ended.
pub(crate) struct Rounds<'a> {
    client: Client,
    options: &'a Options,
    orders: Vec<Order>,
    lives: JoinSet<(String, Result<v1::Job>)>,
    ended: Ended,
}

impl<'a> Rounds<'a> {
    pub(crate) fn new(client: Client, options: &'a Options) -> Self {
        Self { client, options, orders: Vec::new(), lives: JoinSet::new(), ended: Ended::new() }
    }

    /// Starts another round of jobs when all have ended, except poisoned ones and the real one. So
    /// no fault meets an idle farm, or one whose next progress takes as long as a real picture.
    pub(crate) fn keep_up(&mut self) {
        self.look();
        let quick = |order: &Order| order.mood != Mood::Poisoned && order.cascade.is_empty();
        if !self.orders.iter().any(|order| quick(order) && self.is_at_work(order)) {
            let fakes = self.orders.iter().filter(|order| order.cascade.is_empty()).count();
            for order in round(self.options, fakes as u32) {
                self.start(order);
            }
        }
    }

    /// Starts a real job, and another when it has ended, so that faults meet one. Does nothing if
    /// the farm has no real worker.
    pub(crate) fn keep_rendering(&mut self) {
        let Some(real) = &self.options.setup.real else { return };
        self.look();
        let in_earnest = |order: &&Order| order.cascade == real.name;
        let so_far = self.orders.iter().filter(in_earnest).count();
        if !self.orders.iter().filter(in_earnest).any(|order| self.is_at_work(order)) {
            self.start(self::in_earnest(self.options, &real.name, so_far + 1));
        }
    }

    /// Whether every job has ended or was given up.
    pub(crate) fn is_over(&mut self) -> bool {
        self.look();
        self.lives.is_empty()
    }

    /// The submitted jobs, and how they ended.
    pub(crate) fn into_parts(self) -> (Vec<Order>, Ended) {
        (self.orders, self.ended)
    }

    fn start(&mut self, order: Order) {
        let number = self.orders.len() as u64;
        let (client, rng) = (self.client.clone(), Rng::with_seed(self.options.seed ^ (number + 1)));
        self.orders.push(order.clone());
        self.lives.spawn(async move { (order.request_id.clone(), client.live(&order, rng).await) });
    }

    fn is_at_work(&self, order: &Order) -> bool {
        !self.ended.contains_key(&order.request_id)
    }

    /// Records the jobs that have ended.
    fn look(&mut self) {
        while let Some(life) = self.lives.try_join_next() {
            let (id, job) = life.expect("a client does not panic");
            self.ended.insert(id, job);
        }
    }
}

/// A round of jobs for two tenants, with the moods in turn, numbered from `first`.
fn round(options: &Options, first: u32) -> Vec<Order> {
    let moods = [
        Mood::Steady,
        Mood::Deleted,
        Mood::Wavering,
        Mood::Repenting,
        Mood::Poisoned,
        Mood::Cancelled,
    ];
    let order = |number: u32| {
        let mood = moods[number as usize % moods.len()];
        // A job that is deleted shares its pictures with the steady job before it.
        let like = if mood == Mood::Deleted { number.saturating_sub(1) } else { number };
        Order {
            request_id: format!("job {number}"),
            subject: format!("job {like}"),
            tenant: format!("tenant-{}", like % 2),
            prompts: (options.images / 4).max(1),
            images_per_prompt: 4,
            seed: u64::from(like) * 1_000_000,
            mood,
            cascade: String::new(),
        }
    };
    (first..first + options.jobs).map(order).collect()
}

/// A job that is rendered with the networks of a cascade. The pictures are the same each time, so
/// the calm run renders them only once.
fn in_earnest(options: &Options, cascade: &str, time: usize) -> Order {
    Order {
        request_id: format!("in earnest {time}"),
        subject: "in earnest".to_owned(),
        tenant: "tenant-0".to_owned(),
        prompts: options.real_images.max(1),
        images_per_prompt: 1,
        seed: 7,
        mood: Mood::Steady,
        cascade: cascade.to_owned(),
    }
}
