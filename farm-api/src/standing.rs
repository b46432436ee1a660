//! Whether the caller of an open stream may still make the call. A stream can last for days, and a
//! key may end or be revoked meanwhile.

use std::{fmt, sync::Arc, time::Duration};

use darkroom_core::{
    error::{Code, UserError},
    scope::Scope,
};
use futures::{StreamExt as _, future::ready, stream, stream::BoxStream};

use crate::{
    Answer,
    keeper::{Keeper, Known, Proof},
};

/// How often an open stream's caller is looked up again.
const AGAIN: Duration = Duration::from_secs(3);

/// How a caller was let in. The layer puts it into the extensions of each request.
#[derive(Clone)]
pub struct Standing {
    pub(crate) keeper: Arc<dyn Keeper>,
    pub(crate) proof: Proof,
    /// What the call needs; none if any caller may make it.
    pub(crate) scope: Option<Scope>,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Standing {
    /// Who calls now.
    ///
    /// # Errors
    /// As [`Keeper::known`].
    pub async fn known(&self) -> Answer<Known> {
        self.keeper.known(&self.proof).await
    }

    /// Resolves with the refusal when the caller may not make the call any more. A record that
    /// cannot be asked ends nothing.
    async fn lost(self) -> UserError {
        loop {
            tokio::time::sleep(AGAIN).await;
            let known = self.keeper.known(&self.proof).await;
            let stands = known
                .and_then(|known| self.scope.map_or(Ok(()), |scope| known.caller.needs(scope)));
            match stands {
                Err(error)
                    if matches!(error.code, Code::Unauthenticated | Code::PermissionDenied) =>
                {
                    return error;
                }
                _ => {}
            }
        }
    }
}

/// The stream, which ends with the refusal as soon as its caller may not make the call any more.
/// Without a standing, on an open farm, it is passed on.
pub fn while_it_stands<T: Send + 'static>(
    standing: Option<Standing>,
    items: BoxStream<'static, Answer<T>>,
) -> BoxStream<'static, Answer<T>> {
    let Some(standing) = standing else { return items };
    let items = items.map(Some).chain(stream::once(ready(None)));
    let refusal = stream::once(standing.lost());
    let refusal = refusal.flat_map(|error| stream::iter([Some(Err(error)), None])).boxed();
    // Whichever comes to its end first ends both.
    stream::select(items, refusal)
        .take_while(|item| ready(item.is_some()))
        .filter_map(ready)
        .boxed()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::Caller;

    /// Knows a caller of these scopes, or refuses with this code.
    #[derive(Default)]
    struct Told(AtomicU8);

    #[async_trait]
    impl Keeper for Told {
        async fn known(&self, _: &Proof) -> Result<Known, UserError> {
            let refuse = |code| Err(UserError::new(code, "X", "refused"));
            let known = |scope| {
                Ok(Known { caller: Caller::of(None, [scope], Some("k".into())), expires: None })
            };
            match self.0.load(Ordering::Relaxed) {
                0 => known(Scope::Operate),
                1 => refuse(Code::Unavailable),
                2 => known(Scope::Read),
                _ => refuse(Code::Unauthenticated),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_caller_is_known_no_more_and_not_when_nobody_can_be_asked() {
        for (told, code) in [(2, Code::PermissionDenied), (3, Code::Unauthenticated)] {
            let keeper = Arc::new(Told::default());
            let proof = Proof::Certificate("CN=a".to_owned());
            let shared = Arc::clone(&keeper) as Arc<dyn Keeper>;
            let standing = Standing { keeper: shared, proof, scope: Some(Scope::Operate) };
            let items = stream::iter([Ok(1)]).chain(stream::pending()).boxed();
            let mut items = while_it_stands(Some(standing), items);
            assert_eq!(items.next().await, Some(Ok(1)));
            for quiet in [0, 1] {
                keeper.0.store(quiet, Ordering::Relaxed);
                let waited = tokio::time::timeout(10 * AGAIN, items.next()).await;
                assert!(waited.is_err(), "{quiet}");
            }
            keeper.0.store(told, Ordering::Relaxed);
            let refused = tokio::time::timeout(2 * AGAIN, items.next()).await.expect("soon");
            assert_eq!(refused.expect("an item").expect_err("a refusal").code, code);
            assert!(items.next().await.is_none(), "it is over");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_it_is_complete() {
        let keeper = Arc::new(Told::default()) as Arc<dyn Keeper>;
        let proof = Proof::Certificate("CN=a".to_owned());
        let standing = Standing { keeper, proof, scope: Some(Scope::Read) };
        for standing in [None, Some(standing)] {
            let items = stream::iter([Ok(1), Ok(2)]).boxed();
            let all: Vec<_> = while_it_stands(standing, items).collect().await;
            assert_eq!(all, [Ok(1), Ok(2)]);
        }
    }
}
