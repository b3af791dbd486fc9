//! One question and its answer over HTTP, redirects followed.

use std::io::Read as _;
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, Response, StatusCode, Uri, header};
use ureq::{Agent, Body};

use super::env::HubEnv;
use super::error::{Cause, FetchError};

const MAX_REDIRECTS: usize = 10;
/// How much of a web page an error shows, characters.
const SHOWN_OF_PAGE: usize = 60;

/// Asks servers; shows the token to the hub alone.
#[derive(Debug)]
pub(crate) struct Http {
    agent: Agent,
    env: HubEnv,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The headers; redirects are followed as long as they stay with the same server.
    Headers,
    /// The bytes from this position on; redirects are followed wherever they lead.
    Bytes { from: u64 },
}

/// Answers to one question, the redirects that were followed included.
#[derive(Debug)]
pub(crate) struct Answers {
    /// Headers of every answer, in order.
    pub(crate) headers: Vec<HeaderMap>,
    pub(crate) last: Response<Body>,
}

/// Why there is no answer that helps, and whether another try may have one.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another try would end the same way.
    Final(FetchError),
    /// The connection broke, or the server is busy.
    Passing(Passing),
}

/// A failure that may pass.
#[derive(Debug)]
pub(crate) struct Passing {
    pub(crate) cause: Cause,
    /// Status of the answer, if there was one.
    pub(crate) status: Option<u16>,
    /// The pause that the server asks for.
    pub(crate) pause: Option<Duration>,
}

impl Failure {
    pub(crate) fn passing(cause: impl Into<Cause>) -> Self {
        Self::Passing(Passing { cause: cause.into(), status: None, pause: None })
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::Final(error)
    }
}

impl Http {
    pub(crate) fn new(env: &HubEnv) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Variables other than those of `HubEnv` are not read, so no proxy either.
            .proxy(None)
            .user_agent(concat!("taper/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(env.patience.connect))
            .timeout_connect(Some(env.patience.connect))
            .timeout_recv_response(Some(env.patience.read))
            .timeout_per_read(Some(env.patience.read))
            .build();
        Self { agent: Agent::new_with_config(config), env: env.clone() }
    }

    /// Asks once. Any status but a redirect to follow is an answer; [`refusal`] sorts them.
    pub(crate) fn ask(&self, ask: Ask, url: &str) -> Result<Answers, Failure> {
        let mut url = url.to_owned();
        let mut headers = Vec::new();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(ask, &url)?;
            headers.push(response.headers().clone());
            let Some(location) = location(&response) else {
                return Ok(Answers { headers, last: response });
            };
            let next = resolve(&url, &location).ok_or_else(|| redirect(&url, &location, "it is no web address"))?;
            if origin(&next) != origin(&url) {
                if ask == Ask::Headers {
                    return Ok(Answers { headers, last: response });
                }
                if url.starts_with("https:") && !next.starts_with("https:") {
                    return Err(redirect(&url, &location, "it leaves the encrypted connection").into());
                }
            }
            url = next;
        }
        Err(redirect(&url, "", "there have been ten already").into())
    }

    fn send(&self, ask: Ask, url: &str) -> Result<Response<Body>, Failure> {
        let mut request = match ask {
            Ask::Headers => self.agent.head(url),
            Ask::Bytes { .. } => self.agent.get(url),
        };
        // A compressed answer would have another size and other sums.
        request = request.header(header::ACCEPT_ENCODING, "identity");
        if let Ask::Bytes { from: from @ 1.. } = ask {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = &self.env.token
            && origin(url).is_some_and(|origin| Some(origin) == self::origin(&self.env.endpoint))
        {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        request.call().map_err(Failure::passing)
    }
}

/// Sorts the answers that are no success: those that may pass, and those that say no.
///
/// `final_error` makes the error of the latter.
pub(crate) fn refusal(
    response: &mut Response<Body>,
    url: &str,
    final_error: impl FnOnce(u16, &HeaderMap) -> Option<FetchError>,
) -> Option<Failure> {
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        return is_web_page(response, url)
            .then(|| FetchError::WebPage { url: url.to_owned(), start: start_of(response) }.into());
    }
    if matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504) {
        let pause = response.headers().get(header::RETRY_AFTER).and_then(|value| pause_of(value.to_str().ok()?));
        let cause = format!("the server answers {status}").into();
        return Some(Failure::Passing(Passing { cause, status: Some(status.as_u16()), pause }));
    }
    let error = final_error(status.as_u16(), response.headers()).unwrap_or_else(|| status_error(status, url, response));
    Some(error.into())
}

fn status_error(status: StatusCode, url: &str, response: &Response<Body>) -> FetchError {
    let url = url.to_owned();
    let said = text(response.headers(), "x-error-message").unwrap_or_default().to_owned();
    match status.as_u16() {
        status @ (401 | 403) => {
            let reason = if said.is_empty() { "no access".to_owned() } else { said };
            FetchError::Denied { url, status, reason }
        }
        status => FetchError::Status { url, status, reason: said },
    }
}

/// The value of a header, if it is text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The value of a header, if it is a number.
pub(crate) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

/// A file that is not itself a page never comes as HTML: hubs and archives send `text/plain` or `application/*`.
fn is_web_page(response: &Response<Body>, url: &str) -> bool {
    let kind = text(response.headers(), "content-type").unwrap_or_default();
    response.status().is_success() && kind.trim_start().starts_with("text/html") && !url.ends_with(".html")
}

fn start_of(response: &mut Response<Body>) -> String {
    let mut bytes = Vec::new();
    // What cannot be read of a page that is refused anyway is no loss.
    let _ = response.body_mut().as_reader().take(4 * SHOWN_OF_PAGE as u64).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().chars().take(SHOWN_OF_PAGE).collect()
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn pause_of(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

fn location(response: &Response<Body>) -> Option<String> {
    let leads_on = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    leads_on.then(|| text(response.headers(), "location").map(str::to_owned)).flatten()
}

fn redirect(url: &str, location: &str, reason: &'static str) -> FetchError {
    FetchError::Redirect { url: url.to_owned(), location: location.to_owned(), reason }
}

/// The address that `location` names, seen from `base`.
fn resolve(base: &str, location: &str) -> Option<String> {
    let scheme = &base[..base.find("//")?];
    let root_len = base.find("//")? + 2;
    let root_end = base[root_len..].find('/').map_or(base.len(), |at| root_len + at);
    let absolute = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}{location}")
    } else if location.starts_with('/') {
        format!("{}{location}", &base[..root_end])
    } else {
        let path = base[root_end..].split(['?', '#']).next().unwrap_or_default();
        let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
        format!("{}{folder}{location}", &base[..root_end])
    };
    absolute.parse::<Uri>().is_ok_and(|uri| uri.host().is_some()).then_some(absolute)
}

/// Scheme, host and port: the token stays with them.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let base = "https://hub.co/o/n/resolve/main/f?x=/y";
        let cases = [
            ("https://cdn.co/a?b=c", Some("https://cdn.co/a?b=c")),
            ("//cdn.co/a", Some("https://cdn.co/a")),
            ("/api/x", Some("https://hub.co/api/x")),
            ("g", Some("https://hub.co/o/n/resolve/main/g")),
            ("https://", None),
        ];
        for (location, expected) in cases {
            assert_eq!(resolve(base, location).as_deref(), expected, "{location}");
        }
        assert_eq!(resolve("http://h:1", "/x").as_deref(), Some("http://h:1/x"));
    }

    #[test]
    fn origins() {
        let same = [("https://a.co/x", "https://A.co:443/y"), ("http://a.co", "http://a.co:80/")];
        for (one, other) in same {
            assert_eq!(origin(one), origin(other));
        }
        let different = [
            ("https://a.co/", "http://a.co/"),
            ("http://a.co/", "http://a.co:81/"),
            ("https://a.co/", "https://b.a.co/"),
            ("https://a.co/", "https://a.co.evil.co/"),
        ];
        for (one, other) in different {
            assert_ne!(origin(one), origin(other), "{one} {other}");
        }
    }

    #[test]
    fn pauses() {
        assert_eq!(pause_of("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause_of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let later = SystemTime::now() + Duration::from_secs(90);
        let pause = pause_of(&httpdate::fmt_http_date(later)).unwrap();
        assert!((85..=90).contains(&pause.as_secs()), "{pause:?}");
        assert_eq!(pause_of("soon"), None);
    }
}
