//! The layers around the router, in the order in which a request passes them.
//!
//! Each is a plain tower service that boxes nothing: a fresh hit passes all of them, and leaves at
//! the last. A layer that only changes the answer returns a [`MapResponse`], which changes it in place.
//! Errors stay [`Rejection`]s until [`answer_problems`] makes problem documents of them.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use axum::{Router, body::Body};
use futures_util::future::Either;
use http::Request;
use pin_project_lite::pin_project;
use tower::{Service, service_fn};

use super::{
    access_log::RequestGuard,
    caching,
    context::RequestContext,
    data::{self, ParseDataRequest},
    page, rate_limit,
    rate_limit::RateLimitHeaders,
    response::{ApiResponse, HandlerResult, Rejection, uncarry},
    spans::SpanParent,
    static_files,
    unsent_budget::{ApiBody, ResponseRecipient},
};
use crate::{
    panic::{self, HandlerPanicked},
    problem::Problem,
    request_id::X_REQUEST_ID,
};

/// A service for requests; `E` is [`Infallible`] outside of [`answer_problems`].
pub(super) trait ApiService<E = Rejection>:
    Service<RequestContext, Response = ApiResponse, Error = E, Future: Send> + Clone + Send + 'static
{
}

pin_project! {
    /// The answer of a service, changed when it is there.
    struct MapResponse<F, M> {
        #[pin]
        response: F,
        map: Option<M>,
    }
}

impl<S, E> ApiService<E> for S where
    S: Service<RequestContext, Response = ApiResponse, Error = E, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Adds `X-Request-Id`, `Cache-Status` and the rate limit to every answer.
pub(super) fn add_common_headers<S: ApiService<Infallible>>(
    mut inner: S,
) -> impl ApiService<Infallible> {
    service_fn(move |context: RequestContext| {
        MapResponse::new(inner.call(context.clone()), move |response| {
            let cache_status = caching::cache_status(&response.cache_status);
            let headers = response.headers_mut();
            if let Some(rate_limit) = context.rate_limit() {
                rate_limit.insert_into(headers);
            }
            headers.insert(caching::CACHE_STATUS, cache_status);
            headers.insert(X_REQUEST_ID, context.request_id.clone());
        })
    })
}

/// Counts and logs every request, also one whose client disconnects.
pub(super) fn record<S: ApiService<Infallible>>(mut inner: S) -> impl ApiService<Infallible> {
    service_fn(move |context: RequestContext| {
        let guard = RequestGuard::new(context.clone());
        MapResponse::new(inner.call(context), move |response| {
            guard.complete(response);
        })
    })
}

/// Lets pages of allowed origins read answers, whatever the answer is.
pub(super) fn add_cors_headers<S: ApiService<Infallible>>(
    mut inner: S,
) -> impl ApiService<Infallible> {
    service_fn(move |context: RequestContext| {
        MapResponse::new(inner.call(context.clone()), move |response| {
            if let Some(cors) = &context.api.cors {
                cors.add_headers(context.headers(), response.headers_mut());
            }
        })
    })
}

/// Counts answers as unsent until they are, and rejects requests while too much is unsent.
pub(super) fn limit_unsent<S: ApiService<Infallible>>(mut inner: S) -> impl ApiService<Infallible> {
    service_fn(move |context: RequestContext| {
        MapResponse::new(inner.call(context.clone()), move |response| {
            let recipient = match context.identity() {
                _ if context.api.authenticator.allows_anonymous() => ResponseRecipient::Anonymous,
                Some(identity) => ResponseRecipient::Caller(identity),
                None => ResponseRecipient::Unauthenticated,
            };
            let version = context.head.version;
            let budgets = &context.api.unsent_budgets;
            match budgets.charge(&response.http, version, recipient) {
                Ok(None) => {}
                Ok(Some(charge)) => response.http.body_mut().set_charge(charge),
                Err(problem) => *response = answer_problem(&context, problem.into()),
            }
        })
    })
}

/// Makes problem documents of problems and panics; on the page, pages.
pub(super) fn answer_problems<S: ApiService>(inner: S) -> impl ApiService<Infallible> {
    service_fn(move |context: RequestContext| {
        let mut inner = inner.clone();
        async move {
            let handler = pin!(async { inner.call(context.clone()).await });
            let result = panic::catch(handler)
                .await
                .unwrap_or_else(|HandlerPanicked| {
                    context.api.metrics.panics.inc();
                    Err(Problem::internal().into())
                });
            Ok(result.unwrap_or_else(|rejection| answer_problem(&context, rejection)))
        }
    })
}

fn answer_problem(context: &RequestContext, rejection: Rejection) -> ApiResponse {
    let Rejection {
        problem,
        cache_status,
        log_fields,
        correlation_id,
    } = rejection;
    let http = if context.route.is_page() && is_host_allowed(context) {
        page::problem_page(context, &problem)
    } else {
        let correlation_id = context.correlation_id(correlation_id);
        problem
            .for_request(context.path(), &context.request_id, Some(correlation_id))
            .into_response()
    };
    ApiResponse {
        http: http.map(ApiBody::from),
        cache_status,
        log_fields,
    }
}

/// Rejects requests for hosts that this listener does not serve, and answers preflights.
pub(super) fn check_origin<S: ApiService>(mut inner: S) -> impl ApiService {
    service_fn(move |context: RequestContext| {
        let early = match check_host(&context) {
            Err(problem) => Some(Err(problem.into())),
            Ok(()) => preflight(&context),
        };
        or_call(early, &mut inner, context)
    })
}

/// Sets who sent a request. Nothing is looked up before that, not even whether the path exists; only
/// static files, which are the same for everyone, need no credential.
pub(super) fn authenticate<S: ApiService>(inner: S) -> impl ApiService {
    service_fn(move |context: RequestContext| {
        let mut inner = inner.clone();
        async move {
            let api = &context.api;
            if api.authenticator.allows_anonymous() {
                context.start_span(SpanParent::Traceparent);
            }
            if !static_files::is_public(&context) {
                let identity = api
                    .authenticator
                    .authenticate(context.headers(), &context.peer);
                let identity = identity.await.map_err(|error| {
                    api.metrics.access.record_denied(error);
                    error.problem_for(context.route)
                })?;
                context.start_span(SpanParent::Traceparent);
                context.set_identity(identity);
            }
            inner.call(context).await
        }
    })
}

/// Rejects requests beyond the rate limit of their caller.
pub(super) fn limit_rate<S: ApiService>(mut inner: S) -> impl ApiService {
    service_fn(move |context: RequestContext| {
        let limit = context
            .identity()
            .and_then(|identity| identity.rate_limit());
        let exhausted = limit.and_then(|limit| {
            let acquired = limit.acquire(context.received_at);
            context.set_rate_limit(RateLimitHeaders::new(limit, acquired));
            let exhausted = acquired.err()?;
            context.api.metrics.access.rate_limited.inc();
            Some(Err(
                rate_limit::rate_limited_problem(limit, exhausted).into()
            ))
        });
        or_call(exhausted, &mut inner, context)
    })
}

/// Answers what is fresh in the cache and may be read by the caller; everything else is passed on.
pub(super) fn serve_fresh_hits<S: ApiService>(
    parsers: Vec<Option<ParseDataRequest>>,
    mut inner: S,
) -> impl ApiService {
    let parsers = std::sync::Arc::<[_]>::from(parsers);
    service_fn(move |context: RequestContext| {
        let parser = parsers.get(context.route.index).copied().flatten();
        let hit = parser.and_then(|parse| {
            let identity = context.identity()?;
            data::fresh_hit(&context, identity.caller(), parse)
        });
        or_call(hit.map(Ok), &mut inner, context)
    })
}

/// Calls the handler of the route.
pub(super) fn route(router: Router) -> impl ApiService {
    service_fn(move |context: RequestContext| {
        let mut request = Request::from_parts(context.head.clone(), Body::empty());
        request.extensions_mut().insert(context);
        let mut router = router.clone();
        // On the heap, so that a hit does not move what only a miss needs.
        Box::pin(async move {
            let Ok(response) = router.call(request).await;
            uncarry(response)
        })
    })
}

// === impl MapResponse ===

impl<F, M: FnOnce(&mut ApiResponse)> MapResponse<F, M> {
    fn new(response: F, map: M) -> Self {
        Self {
            response,
            map: Some(map),
        }
    }
}

impl<F, M, E> Future for MapResponse<F, M>
where
    F: Future<Output = Result<ApiResponse, E>>,
    M: FnOnce(&mut ApiResponse),
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut result = ready!(this.response.poll(cx));
        if let (Ok(response), Some(map)) = (&mut result, this.map.take()) {
            map(response);
        }
        Poll::Ready(result)
    }
}

/// Returns an early result, or calls the inner service.
fn or_call<S: ApiService>(
    early: Option<HandlerResult>,
    inner: &mut S,
    context: RequestContext,
) -> Either<Ready<HandlerResult>, S::Future> {
    match early {
        Some(result) => Either::Left(ready(result)),
        None => Either::Right(inner.call(context)),
    }
}

fn check_host(context: &RequestContext) -> Result<(), Problem> {
    match &context.api.allowed_hosts {
        Some(hosts) => hosts.check(&context.head.uri, context.headers()),
        None => Ok(()),
    }
}

/// On another host the page's style sheet would be rejected too.
fn is_host_allowed(context: &RequestContext) -> bool {
    check_host(context).is_ok()
}

/// The answer to a request by which a browser asks whether a page may make its request.
fn preflight(context: &RequestContext) -> Option<HandlerResult> {
    let answer = context.api.cors.as_ref()?.preflight(&context.head)?;
    Some(answer.map(ApiResponse::uncached).map_err(Rejection::from))
}
