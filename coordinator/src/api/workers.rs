//! Workers, cascades, and the farm itself.

use std::time::{SystemTime, UNIX_EPOCH};

use darkroom_core::{
    error::{Code, UserError},
    worker_state::WorkerState,
};
use darkroom_farm_api::{Caller, Scope};
use darkroom_proto::v1;
use darkroom_queue::task::{Orders, WorkerCard};

use super::{Farm, convert, refused};
use crate::{
    error::Error,
    feed::Workers,
    store::{limits::timestamp, records::RunningCoordinator},
};

impl Farm {
    pub(super) async fn workers(
        &self,
        caller: &Caller,
        _: v1::ListWorkersRequest,
    ) -> Result<v1::ListWorkersResponse, Error> {
        caller.needs(Scope::Operate).map_err(refused)?;
        let cards = self.shared.queue.workers(self.shared.options.worker_ttl).await?;
        let all = Workers::of(self.front.as_ref(), cards).await?;
        Ok(v1::ListWorkersResponse { workers: Self::view_all(all) })
    }

    /// All workers, with those that are blamed or set aside marked.
    pub(super) fn view_all(all: Workers) -> Vec<v1::Worker> {
        let mut workers = Self::view_workers(&all.cards);
        for worker in &mut workers {
            let blamed = all.blamed.iter().find(|(blamed, _)| blamed.0 == worker.id);
            worker.blamed_images = blamed.map_or(0, |(_, images)| *images);
        }
        for aside in all.asides {
            let Some(worker) = workers.iter_mut().find(|worker| worker.id == aside.worker.0) else {
                continue;
            };
            if worker.state != WorkerState::Draining.name() {
                WorkerState::SetAside.name().clone_into(&mut worker.state);
            }
            worker.aside_reason = aside.reason;
            worker.aside_until = Some(timestamp(aside.until_ms));
        }
        workers
    }

    fn view_workers(cards: &[WorkerCard]) -> Vec<v1::Worker> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        cards.iter().map(|card| convert::worker(card, now)).collect()
    }

    pub(super) async fn drain(
        &self,
        caller: &Caller,
        request: v1::DrainWorkerRequest,
    ) -> Result<v1::DrainWorkerResponse, Error> {
        caller.needs(Scope::Operate).map_err(refused)?;
        let cards = self.shared.queue.workers(self.shared.options.worker_ttl).await?;
        let chosen = choose(&cards, &request).map_err(refused)?;
        if self.shared.options.resident_workers {
            let message = "the workers of this farm are parts of its process and cannot be \
                drained, because no others could replace them; stop the process instead (Ctrl-C or \
                SIGTERM), which drains them first";
            return Err(refused(UserError::new(
                Code::FailedPrecondition,
                "RESIDENT_WORKERS",
                message,
            )));
        }
        let mut changed = false;
        for card in &chosen {
            // In the record first, because the queue may lose it, and is then told again.
            changed |= self.front.command_drain(&card.id).await?;
            match self.shared.queue.ask_to_drain(&card.id).await {
                Ok(()) => tracing::info!(worker = %card.id, "asked to drain"),
                Err(error) => {
                    tracing::warn!(worker = %card.id, %error, "a drain command did not reach the \
                        queue; it is sent again");
                }
            }
        }
        self.call.tell_changed(changed);
        let orders = Orders { drain: true, aside: false };
        let chosen: Vec<_> = chosen.into_iter().map(|card| card.clone().under(orders)).collect();
        Ok(v1::DrainWorkerResponse { workers: Self::view_workers(&chosen) })
    }

    /// The same for every caller: cascades belong to no tenant.
    pub(super) fn cascades(&self, _: v1::ListCascadesRequest) -> v1::ListCascadesResponse {
        v1::ListCascadesResponse { cascades: self.view_cascades() }
    }

    fn view_cascades(&self) -> Vec<v1::Cascade> {
        let cascades = self.shared.cascades.iter();
        cascades.map(|(digest, cascade)| convert::cascade(digest, cascade)).collect()
    }

    pub(super) async fn farm(
        &self,
        caller: &Caller,
        _: v1::GetFarmRequest,
    ) -> Result<v1::GetFarmResponse, Error> {
        let mut farm = v1::GetFarmResponse {
            cascades: self.view_cascades(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        };
        let operates = caller.may(Scope::Operate);
        if operates || caller.may(Scope::Member) {
            farm.farm_id = self.front.farm_id().await?.to_string();
            farm.lease_seconds = self.shared.lease().await?.as_secs_f64();
        }
        if operates {
            farm.jobs_overlooked = self.front.overlooked().await?;
            farm.troubles = self.shared.disks.full().into_iter().collect();
            farm.troubles.extend(self.shared.stored.warning());
            farm.troubles.extend(self.shared.troubles.all());
            let own = self.shared.leadership.holder();
            let running = self.front.coordinators(own).await?;
            farm.coordinators = running.into_iter().map(|one| coordinator(one, own)).collect();
            self.shared.artifacts.name().clone_into(&mut farm.storage);
        }
        Ok(farm)
    }
}

fn coordinator(one: RunningCoordinator, own: &str) -> v1::Coordinator {
    let RunningCoordinator { holder, leads, seen_ms } = one;
    let answers = holder == own;
    v1::Coordinator { id: holder, leads, last_seen: Some(timestamp(seen_ms)), answers }
}

/// Most workers that a refusal names.
const NAMED: usize = 10;

/// The workers that a request selects.
fn choose<'a>(
    cards: &'a [WorkerCard],
    request: &v1::DrainWorkerRequest,
) -> Result<Vec<&'a WorkerCard>, UserError> {
    let unknown = |field: &str, value: &str, what: &str, mut there: Vec<&str>| {
        there.sort_unstable();
        there.dedup();
        let rest = there.len().saturating_sub(NAMED);
        let mut named = there.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
        if named.is_empty() {
            "none, no worker is there".clone_into(&mut named);
        } else if rest > 0 {
            named += &format!(" and {rest} others");
        }
        UserError {
            field: Some(field.to_owned()),
            ..UserError::new(
                Code::NotFound,
                "UNKNOWN_WORKER",
                format!("{field} is {value:?}; {what}: {named}"),
            )
        }
    };
    match (request.worker.as_str(), request.host.as_str()) {
        ("", "") => {
            Err(UserError::invalid("worker", "worker is empty; accepted: a worker's id, or a host"))
        }
        ("", host) => {
            let chosen: Vec<_> = cards.iter().filter(|card| card.host == host).collect();
            let hosts = cards.iter().map(|card| card.host.as_str()).collect();
            if chosen.is_empty() {
                Err(unknown("host", host, "hosts with workers are", hosts))
            } else {
                Ok(chosen)
            }
        }
        (worker, "") => {
            if let Some(card) = cards.iter().find(|card| card.id.0 == worker) {
                return Ok(vec![card]);
            }
            let chosen: Vec<_> =
                cards.iter().filter(|card| card.id.0.starts_with(worker)).collect();
            match chosen.as_slice() {
                [one] => Ok(vec![one]),
                [] => {
                    let ids = cards.iter().map(|card| card.id.0.as_str()).collect();
                    Err(unknown("worker", worker, "workers are", ids))
                }
                several => Err(UserError::invalid(
                    "worker",
                    format!(
                        "worker is {worker:?}, but the ids of {} workers begin with that; \
                         accepted: more of the id",
                        several.len()
                    ),
                )),
            }
        }
        _ => Err(UserError::invalid(
            "host",
            "host is set, and so is worker; accepted: one of the two",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use darkroom_core::id::WorkerId;

    use super::*;
    use crate::store::worker_health::Aside;

    fn card(id: &str, host: &str) -> WorkerCard {
        WorkerCard {
            id: WorkerId(id.to_owned()),
            host: host.to_owned(),
            device: "cpu".to_owned(),
            device_class: "fake".to_owned(),
            pools: BTreeMap::new(),
            leased: 0,
            done: 0,
            busy: 0.0,
            state: WorkerState::Working,
            trouble: String::new(),
            failed: 0,
            memory: None,
            version: String::new(),
            seen_seconds_ago: 0.0,
        }
    }

    #[test]
    fn a_worker_is_meant_by_its_id_a_unique_beginning_or_its_host() {
        let cards = [card("a-1", "a"), card("a-12", "a"), card("b-7", "b")];
        let ask = |worker: &str, host: &str| {
            let request =
                v1::DrainWorkerRequest { worker: worker.to_owned(), host: host.to_owned() };
            choose(&cards, &request)
                .map(|chosen| chosen.iter().map(|card| card.id.0.clone()).collect::<Vec<_>>())
        };
        assert_eq!(ask("a-1", "").expect("its id"), ["a-1"]);
        assert_eq!(ask("a-12", "").expect("its id"), ["a-12"]);
        assert_eq!(ask("b", "").expect("a beginning"), ["b-7"]);
        assert_eq!(ask("", "a").expect("a host").len(), 2);
        assert_eq!(ask("a", "").expect_err("two").code, Code::InvalidArgument);
        let unknown = ask("c", "").expect_err("nobody");
        assert_eq!(unknown.code, Code::NotFound);
        assert_eq!(unknown.message, "worker is \"c\"; workers are: a-1, a-12, b-7");
        assert_eq!(ask("", "c").expect_err("nobody").code, Code::NotFound);
        assert!(ask("", "").is_err() && ask("a-1", "a").is_err());
    }

    #[test]
    fn a_worker_is_shown_with_what_it_is_blamed_for_and_why_it_is_set_aside() {
        let id = |id: &str| WorkerId(id.to_owned());
        let aside = Aside {
            worker: id("b"),
            until_ms: 60_000,
            left: Duration::from_secs(30),
            reason: "failed on 3 images".to_owned(),
        };
        let newer = WorkerCard { version: "2.0.0".to_owned(), ..card("a", "a") };
        let all = Workers {
            cards: vec![newer, card("b", "b"), card("c", "c")],
            asides: vec![aside],
            blamed: vec![(id("a"), 2), (id("gone"), 9)],
        };
        let seen: Vec<_> = Farm::view_all(all)
            .into_iter()
            .map(|one| (one.id, one.blamed_images, one.state, one.aside_reason, one.version))
            .collect();
        let told = |id: &str, blamed, state: &str, reason: &str, version: &str| {
            (id.to_owned(), blamed, state.to_owned(), reason.to_owned(), version.to_owned())
        };
        assert_eq!(
            seen,
            [
                told("a", 2, "working", "", "2.0.0"),
                told("b", 0, "set aside", "failed on 3 images", ""),
                told("c", 0, "working", "", ""),
            ]
        );
    }
}
