//! Questions about a request to a datasource, without asking the datasource.

use axum::http::{HeaderMap, Method};

use super::ProxyError;
use super::headers::end_to_end;
use super::location::{DatasourceRef, Located, SubPath, locate};
use super::rights::Right;
use super::service::{Proxy, deciding_headers};
use super::tenancy;
use crate::error::ApiError;
use crate::query::explain::Explained;
use crate::query::params::Params;
use crate::query::plan::{Endpoint, Source};
use crate::query::tenancy::Scope;

/// What is asked about: a saved datasource and a path below it.
#[derive(Debug)]
pub struct Question {
    reference: DatasourceRef,
    path: SubPath,
}

impl Question {
    /// What the caller must be allowed to do before [`Proxy::explain`] is called: the same as for the request itself.
    pub fn right(&self) -> Right {
        Right::to_use(&self.reference)
    }

    /// Which datasource it is about.
    pub const fn reference(&self) -> &DatasourceRef {
        &self.reference
    }
}

impl Proxy {
    /// Reads a path from `/proxy/` on.
    pub fn question(&self, path: &str) -> Result<Question, ApiError> {
        match locate(path, |name| self.fold(name))? {
            Located::Saved(reference, path) => Ok(Question { reference, path }),
            Located::Unsaved(..) => {
                Err(ApiError::BadRequest("answers of datasources that are not saved are not cached".to_owned()))
            }
        }
    }

    /// Why the answer to a request with these parameters and headers would come from where it would.
    pub async fn explain(
        &self,
        question: Question,
        mut params: Params,
        headers: &HeaderMap,
        scope: &Scope,
    ) -> Result<Explained, ApiError> {
        let Question { reference, path } = question;
        let target = self.target(&reference, &Method::POST).await?;
        if !target.proxy.allows(&Method::POST, &path) && !target.proxy.allows(&Method::GET, &path) {
            let (method, path) = (Method::GET.to_string(), path.decoded().to_owned());
            return Err(ProxyError::EndpointNotAllowed { datasource: target.name.clone(), method, path }.into());
        }
        let mut headers = end_to_end(headers);
        match scope {
            Scope::Within(rule, within) => {
                params = tenancy::limited_params(params, &path, &target, (rule, within), self.query_service())?;
                tenancy::drop_deciding(&mut headers);
            }
            Scope::Free => {}
            Scope::Unlimited if self.tenancy(&reference).is_none() => {}
            Scope::Unlimited => return Err(ApiError::Internal("nobody asked whose data may be seen".to_owned())),
        }
        let policy = self.query_service().policy(reference.project(), reference.name());
        let through = |reason: &str| Ok(Explained::passed_through(reason.to_owned()));
        let Some(endpoint) = Endpoint::from_path(path.decoded()).filter(|_| target.proxy.is_prometheus) else {
            return through("this is no endpoint of a Prometheus whose answers are cached");
        };
        if !policy.cache {
            return through("query.cache is off for the datasource");
        }
        if target.proxy.url.query().is_some() {
            return through("the URL of the datasource has parameters of its own");
        }
        params.take_no_cache();
        let deciding = deciding_headers(&headers, &target.proxy.headers);
        let source = Source { digest: &target.fingerprint, reference: &target.reference };
        let plan = self.query_service().plan((endpoint, path.decoded()), source, &params, &deciding, &policy);
        Ok(self.query_service().explain(plan.as_ref().map_err(|reason| *reason)).await)
    }
}
