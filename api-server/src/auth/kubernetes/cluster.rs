//! The connection to the cluster's API server: reviews, at a bounded rate, remembered for a while (I/O).

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use moka::Expiry;
use moka::future::Cache;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::question::{Question, service_account};
use super::shared::{Answer, SharedAnswers};
use crate::auth::limit::Bucket;
use crate::auth::token::{Claims, Principal};
use crate::cache::Tier;
use crate::cache::redis::RedisTier;
use crate::config::KubernetesAuthorization;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::store::Store;

/// Deadline of one review, and the longest wait for a place within the rate.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a token that the cluster does not know is remembered: who has just been given one must not wait.
const UNKNOWN_TOKEN: Duration = Duration::from_secs(10);
/// Reviewed tokens and answers that are remembered at most.
const REMEMBERED: u64 = 50_000;
/// `pkd` of principals of the cluster.
const KIND: &str = "kubernetes";

/// A user as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterUser {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl ClusterUser {
    /// The groups that the cluster says the user is in.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// What answers are remembered under: everything that they may depend on.
    fn fingerprint(&self) -> [u8; 32] {
        let text = serde_json::json!([self.name, self.uid, self.groups, self.extra]).to_string();
        *blake3::hash(text.as_bytes()).as_bytes()
    }
}

/// The cluster that decides.
pub struct Cluster {
    config: KubernetesAuthorization,
    client: OnceCell<Client>,
    rate: Mutex<Bucket>,
    tokens: Cache<[u8; 32], Option<Arc<ClusterUser>>>,
    answers: Cache<([u8; 32], Question), Answer>,
    shared: Option<SharedAnswers>,
    metrics: Arc<Metrics>,
    pub(super) store: Arc<dyn Store>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Good and bad answers have lives of their own.
struct Lives<F>(F);

impl<K, V, F: Fn(&V) -> Duration> Expiry<K, V> for Lives<F> {
    fn expire_after_create(&self, _: &K, value: &V, _: Instant) -> Option<Duration> {
        Some((self.0)(value))
    }
}

fn cache<K, V>(life: impl Fn(&V) -> Duration + Send + Sync + 'static) -> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(REMEMBERED).expire_after(Lives(life)).build()
}

impl Cluster {
    /// Connects when first asked.
    pub fn new(config: &KubernetesAuthorization, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        let lives = config.clone();
        let known = config.authenticator_ttl.0;
        Self {
            config: config.clone(),
            client: OnceCell::new(),
            rate: Mutex::new(Bucket::new(config.burst.max(1), f64::from(config.qps.max(1)), Instant::now())),
            tokens: cache(move |user: &Option<_>| if user.is_some() { known } else { known.min(UNKNOWN_TOKEN) }),
            answers: cache(move |answer: &Answer| answer.left_of(life(&lives, *answer), Timestamp::now())),
            shared: None,
            metrics,
            store,
        }
    }

    /// Shares answers with the other pods, each for at most `life`.
    #[must_use]
    pub fn sharing(mut self, redis: Option<Arc<RedisTier>>, life: Duration) -> Self {
        self.shared = redis.map(|redis| SharedAnswers::new(redis, life));
        self
    }

    /// Whose token it is. `impersonate` is the user that the sender wants to be instead, which they must be allowed to.
    pub async fn authenticate(&self, token: &str, impersonate: Option<&str>) -> Result<Principal, ApiError> {
        let key = *blake3::hash(token.as_bytes()).as_bytes();
        let user = self.remembered(&self.tokens, key, self.review_token(token), &AtomicBool::new(false)).await?;
        let user = user.ok_or_else(|| ApiError::Unauthorized("invalid authorization header".to_owned()))?;
        let user = match impersonate {
            None => user,
            Some(other) if self.answer(&user, Question::impersonate(other)).await? => Arc::new(as_user(other)),
            Some(_) => return Err(ApiError::Forbidden("you may not act as this user".to_owned())),
        };
        let claims =
            Claims { groups: user.groups.clone(), exp: i64::MAX, ..Claims::external(&user.name, KIND, "", Vec::new()) };
        Ok(Principal::of_cluster(claims, user))
    }

    /// Whether the cluster says yes.
    pub(super) async fn answer(&self, user: &ClusterUser, question: Question) -> Result<bool, ApiError> {
        let (fingerprint, was_shared) = (user.fingerprint(), AtomicBool::new(false));
        let review = async {
            if let Some(shared) = &self.shared
                && let Some(answer) = shared.get(&fingerprint, &question).await
                && !answer.left_of(life(&self.config, answer), Timestamp::now()).is_zero()
            {
                was_shared.store(true, Ordering::Relaxed);
                return Ok(answer);
            }
            // The time before the question: an answer never counts as newer than it is.
            let at = Timestamp::now();
            let answer = Answer { allowed: self.review_access(user, &question).await?, at };
            if let Some(shared) = &self.shared {
                shared.put(&fingerprint, &question, answer).await;
            }
            Ok(answer)
        };
        let key = (fingerprint, question.clone());
        Ok(self.remembered(&self.answers, key, review, &was_shared).await?.allowed)
    }

    /// The remembered answer, else that of the cluster; who asks the same at the same time waits for one review. Failures are
    /// not remembered.
    async fn remembered<K, V>(
        &self,
        cache: &Cache<K, V>,
        key: K,
        review: impl Future<Output = Result<V, String>>,
        was_shared: &AtomicBool,
    ) -> Result<V, ApiError>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        let entry = cache.entry(key).or_try_insert_with(review).await.map_err(|reason| {
            tracing::warn!(%reason, "the cluster's API server gives no review");
            ApiError::BadGateway("the cluster's API server does not answer: try again later".to_owned())
        })?;
        let (tier, result) = match (entry.is_fresh(), was_shared.load(Ordering::Relaxed)) {
            (false, _) => (Tier::L1.as_str(), "hit"),
            (true, true) => (Tier::L2.as_str(), "hit"),
            (true, false) => ("store", "miss"),
        };
        self.metrics.cache("authz", tier, result);
        Ok(entry.into_value())
    }

    async fn review_token(&self, token: &str) -> Result<Option<Arc<ClusterUser>>, String> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let status = self.create(&review).await?.status.unwrap_or_default();
        if !status.authenticated.unwrap_or(false) {
            return Ok(None);
        }
        let user = status.user.unwrap_or_default();
        let name = user.username.unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(ClusterUser {
            name,
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        })))
    }

    async fn review_access(&self, user: &ClusterUser, question: &Question) -> Result<bool, String> {
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: Some(question.attributes()),
            non_resource_attributes: None,
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let status = self.create(&review).await?.status.unwrap_or_default();
        Ok(status.allowed && !status.denied.unwrap_or(false))
    }

    async fn create<K>(&self, review: &K) -> Result<K, String>
    where
        K: kube::Resource<Scope = k8s_openapi::ClusterResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        self.within_rate().await?;
        let client = self.client.get_or_try_init(|| connect(&self.config)).await?;
        let api: Api<K> = Api::all(client.clone());
        let parameters = PostParams::default();
        match tokio::time::timeout(DEADLINE, api.create(&parameters, review)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {DEADLINE:?}")),
        }
    }

    /// Waits for a place within `qps` and `burst`.
    async fn within_rate(&self) -> Result<(), String> {
        let until = Instant::now() + DEADLINE;
        loop {
            let now = Instant::now();
            let Err(wait) = self.rate.lock().take(now) else { return Ok(()) };
            if now + wait > until {
                return Err(
                    "more reviews are asked for than security.authorization.provider.kubernetes.qps allows".to_owned()
                );
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// How long an answer counts after its review.
fn life(config: &KubernetesAuthorization, answer: Answer) -> Duration {
    if answer.allowed { config.authorizer_allow_ttl.0 } else { config.authorizer_deny_ttl.0 }
}

/// Another user as the cluster sees it when somebody acts as it.
fn as_user(name: &str) -> ClusterUser {
    let mut groups = vec!["system:authenticated".to_owned()];
    if let Some((namespace, _)) = service_account(name) {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    ClusterUser { name: name.to_owned(), groups, ..ClusterUser::default() }
}

async fn connect(settings: &KubernetesAuthorization) -> Result<Client, String> {
    // kube takes the process' provider; a second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| error.to_string())?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|error| error.to_string())?
        }
        None => kube::Config::incluster().map_err(|error| {
            format!("{error}: outside of a pod, set security.authorization.provider.kubernetes.kubeconfig")
        })?,
    };
    // Who waits for a review waits in a request: a failure is said at once, and the request may be sent again.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).map_err(|error| error.to_string())
}

/// The body of `whoami` for a user that is no document: upstream's public user, its zero times included.
pub fn public_user(name: &str) -> serde_json::Value {
    let never = Timestamp::from_second(-62_135_596_800).unwrap_or(Timestamp::MIN).to_string();
    serde_json::json!({
        "kind": "User",
        "metadata": {"name": name, "createdAt": never, "updatedAt": never, "version": 0},
        "spec": {"nativeProvider": {}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_apart_for_all_that_tells_users_apart() {
        let user = ClusterUser { name: "a".into(), groups: vec!["g".into()], ..ClusterUser::default() };
        let scoped =
            ClusterUser { extra: BTreeMap::from([("scopes".into(), vec!["user:info".into()])]), ..user.clone() };
        let other = ClusterUser { groups: vec!["h".into()], ..user.clone() };
        assert_eq!(user.fingerprint(), user.clone().fingerprint());
        assert_ne!(user.fingerprint(), scoped.fingerprint());
        assert_ne!(user.fingerprint(), other.fingerprint());
    }

    #[test]
    fn who_is_acted_as_has_the_groups_that_the_cluster_gives() {
        assert_eq!(as_user("ann").groups, ["system:authenticated"]);
        let account = as_user("system:serviceaccount:team:robot");
        assert!(account.groups.contains(&"system:serviceaccounts:team".to_owned()));
    }

    #[test]
    fn whoami_has_the_times_of_upstream() {
        assert_eq!(public_user("a")["metadata"]["createdAt"], "0001-01-01T00:00:00Z");
    }
}
