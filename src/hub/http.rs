//! Requests to the hub and to where it sends us. Nothing that a server says is trusted here: redirects are followed by
//! hand, the token goes to the endpoint's origin alone, headers have one value, and whoever is silent or drips is given
//! up.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ureq::{
    Agent, BodyReader,
    http::{HeaderMap, HeaderValue, Uri, header},
};
use url::{ParseError, Url};

use super::PATIENCE_VARIABLE;

/// Redirects after which a request is given up.
pub(super) const REDIRECTS: usize = 10;
/// Bytes a second that a server sends at least, on average over the longest silence.
const SLOWEST: u64 = 1024;
/// The most bytes of a file; the hub's own limit is 500 GB.
const LARGEST: u64 = 1 << 40;

/// Why a request failed.
pub(super) enum Failed {
    /// Trying again would not help.
    Final(anyhow::Error),
    Passing(anyhow::Error),
}

impl Failed {
    pub fn into_error(self) -> anyhow::Error {
        match self {
            Self::Final(e) | Self::Passing(e) => e,
        }
    }
}

/// What our own checks say is final.
impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Final(error)
    }
}

/// Asks an endpoint, with its token.
#[derive(Clone, Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: Url,
    token: Option<HeaderValue>,
    patience: Duration,
}

impl Client {
    /// # Errors
    /// An endpoint that is no http or https address, a token that no header can hold.
    pub fn new(endpoint: &str, token: Option<&str>, patience: Duration) -> Result<Self> {
        let url = Url::parse(endpoint).with_context(|| format!("HF_ENDPOINT is {endpoint:?}"))?;
        check_url(&url).with_context(|| format!("HF_ENDPOINT is {endpoint:?}"))?;
        let token = token.map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| anyhow!("the hub's token contains invalid characters"))?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        });
        let limit = Some(patience);
        let config = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("hrm/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(limit)
            .timeout_connect(limit)
            .timeout_send_request(limit)
            .timeout_recv_response(limit)
            .timeout_per_read(limit)
            .timeout_per_write(limit);
        Ok(Self { agent: config.build().into(), endpoint: url, token: token.transpose()?, patience })
    }

    /// An address below the endpoint; each part is escaped, slashes too.
    pub fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub fn is_endpoint(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// Asks once; a redirect is an answer. `longest` is how long the body may take in all.
    ///
    /// # Errors
    /// What the network says; a server that is silent.
    pub fn ask(&self, url: &Url, range: Option<&str>, longest: Duration) -> Result<Answer, Failed> {
        let uri: Uri = url.as_str().parse().map_err(|e| anyhow!("cannot request {:?}: {e}", url.as_str()))?;
        let mut request = self.agent.get(uri).header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        if let Some(token) = &self.token
            && self.is_endpoint(url)
        {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.config().timeout_recv_body(Some(longest)).build();
        let response = request.call().map_err(|e| self.explain(url, e))?;
        let (parts, body) = response.into_parts();
        Ok(Answer { url: url.clone(), status: parts.status.as_u16(), headers: parts.headers, body: body.into_reader() })
    }

    /// Asks, and follows where the answers lead.
    ///
    /// # Errors
    /// As [`Self::ask`]; a redirect to nowhere, or without end.
    pub fn follow(&self, url: &Url, range: Option<&str>, longest: Duration) -> Result<Answer, Failed> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.ask(&url, range, longest)?;
            match answer.redirect()? {
                Some(redirect) => url = redirect.url,
                None => return Ok(answer),
            }
        }
        Err(too_many_redirects(&url))
    }

    /// How long `size` bytes take from the slowest server that is waited for.
    pub fn longest(&self, size: u64) -> Duration {
        self.patience + Duration::from_secs(size / SLOWEST)
    }

    /// A body that is given up where too little of it arrives.
    pub fn body<'a>(&'a self, answer: &'a mut Answer) -> Body<'a> {
        Body { client: self, answer, since: Instant::now(), bytes: 0 }
    }

    fn explain(&self, url: &Url, error: ureq::Error) -> Failed {
        let origin = origin(url);
        match error {
            ureq::Error::Timeout(_) => Failed::Final(anyhow!(
                "{origin} has sent nothing for {} s ({PATIENCE_VARIABLE}); the same command resumes the download",
                self.patience.as_secs()
            )),
            ureq::Error::LargeResponseHeader(..) => {
                Failed::Final(anyhow!("{origin} answers with headers that do not end"))
            }
            ureq::Error::Protocol(e) => {
                Failed::Final(anyhow!("{origin} does not answer in HTTP: {}", printable(&e.to_string())))
            }
            e => Failed::Passing(anyhow!("cannot be fetched from {origin}: {}", printable(&e.to_string()))),
        }
    }
}

/// A status and headers; the body is still to be read.
pub(super) struct Answer {
    pub url: Url,
    pub status: u16,
    headers: HeaderMap,
    body: BodyReader<'static>,
}

pub(super) struct Redirect {
    pub url: Url,
    /// It named no host.
    pub relative: bool,
}

impl Answer {
    /// A header's value.
    ///
    /// # Errors
    /// It comes more than once, or is no ASCII.
    pub fn header(&self, name: &str) -> Result<Option<&str>> {
        let mut values = self.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        ensure!(values.next().is_none(), "{} sends {name} more than once", origin(&self.url));
        let text = value.to_str().with_context(|| format!("{} sends {name} as {value:?}", origin(&self.url)))?;
        Ok(Some(text.trim()))
    }

    /// Where the answer leads; none where it is no redirect.
    ///
    /// # Errors
    /// It names no http or https address, or would leave https.
    pub fn redirect(&self) -> Result<Option<Redirect>> {
        if !matches!(self.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let origin = origin(&self.url);
        let location = self.header("location")?.filter(|location| !location.is_empty());
        let location = location.with_context(|| format!("{origin} redirects ({}) to nowhere", self.status))?;
        resolve(&self.url, location).map(Some).with_context(|| format!("{origin} redirects to {location:?}"))
    }

    /// The part of the file that a 206 holds: first byte, last byte, size of the whole.
    ///
    /// # Errors
    /// No such header, or one that contradicts itself or the length of the body.
    pub fn content_range(&self) -> Result<(u64, u64, u64)> {
        let origin = origin(&self.url);
        let text =
            self.header("content-range")?.with_context(|| format!("{origin} does not say which range it sends"))?;
        let parse = || {
            let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            Some((number(first)?, number(last)?, number(total)?))
        };
        let (first, last, total) = parse()
            .filter(|&(first, last, total)| first <= last && last < total && total <= LARGEST)
            .with_context(|| format!("{origin} sends the part {text:?} of a file"))?;
        if let Some(length) = self.content_length()? {
            ensure!(length == last - first + 1, "{origin} sends {length} bytes as the part {text:?} of a file");
        }
        Ok((first, last, total))
    }

    /// # Errors
    /// It is no size of a file.
    pub fn content_length(&self) -> Result<Option<u64>> {
        self.size("content-length")
    }

    /// A header that holds the size of a file.
    ///
    /// # Errors
    /// It does not.
    pub fn size(&self, name: &str) -> Result<Option<u64>> {
        let Some(text) = self.header(name)? else { return Ok(None) };
        let size = number(text).filter(|&size| size <= LARGEST);
        Ok(Some(size.with_context(|| format!("{} announces {text:?} bytes", origin(&self.url)))?))
    }

    /// What a whole file's answer tells of its size: in a 206 the range, in a 200 the length.
    ///
    /// # Errors
    /// As [`Self::content_range`].
    pub fn total(&self) -> Result<Option<u64>> {
        if self.status == 206 { self.content_range().map(|(.., total)| Some(total)) } else { self.content_length() }
    }

    /// The bytes come as they are.
    ///
    /// # Errors
    /// They are compressed.
    pub fn check_encoding(&self) -> Result<()> {
        match self.header("content-encoding")? {
            None | Some("" | "identity") => Ok(()),
            Some(other) => bail!("{} sends the bytes as {other:?}, which was not requested", origin(&self.url)),
        }
    }
}

/// A body as it arrives.
pub(super) struct Body<'a> {
    client: &'a Client,
    answer: &'a mut Answer,
    /// When the time began in which `bytes` have arrived.
    since: Instant,
    bytes: u64,
}

impl Body<'_> {
    /// The next bytes; 0 at the end.
    ///
    /// # Errors
    /// The connection broke; the server is silent, or so slow that it is not waited for.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failed> {
        let read = loop {
            match self.answer.body.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let (passed, patience) = (self.since.elapsed(), self.client.patience);
        let read = match read.map_err(ureq::Error::from) {
            Err(ureq::Error::Timeout(ureq::Timeout::RecvBody)) => return Err(self.too_slow(passed)),
            read => read.map_err(|e| self.client.explain(&self.answer.url, e))?,
        };
        self.bytes += read as u64;
        if read > 0 && passed >= patience {
            if self.bytes < SLOWEST * patience.as_secs() {
                return Err(self.too_slow(passed));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(read)
    }

    fn too_slow(&self, passed: Duration) -> Failed {
        Failed::Final(anyhow!(
            "{} has sent {} bytes in {} s, less than {SLOWEST} a second ({PATIENCE_VARIABLE}); the same command resumes \
             the download",
            origin(&self.answer.url),
            self.bytes,
            passed.as_secs()
        ))
    }
}

fn resolve(from: &Url, location: &str) -> Result<Redirect> {
    let mut url = from.join(location)?;
    url.set_fragment(None);
    check_url(&url)?;
    ensure!(from.scheme() != "https" || url.scheme() == "https", "this leaves https");
    let relative = Url::parse(location) == Err(ParseError::RelativeUrlWithoutBase);
    Ok(Redirect { relative: relative && url.origin() == from.origin(), url })
}

pub(super) fn too_many_redirects(url: &Url) -> Failed {
    Failed::Final(anyhow!("{} redirects more than {REDIRECTS} times", origin(url)))
}

/// Scheme, host and port, for messages.
pub(super) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn check_url(url: &Url) -> Result<()> {
    ensure!(matches!(url.scheme(), "http" | "https") && url.has_host(), "expected an http or https address");
    ensure!(url.username().is_empty() && url.password().is_none(), "expected an address without user and password");
    Ok(())
}

/// Digits alone: no sign, no spaces.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// One line without control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_http_alone() -> Result<()> {
        let from = Url::parse("https://hub.example/a/b?c")?;
        for (location, wanted, relative) in [
            ("/x/y", "https://hub.example/x/y", true),
            ("x", "https://hub.example/a/x", true),
            ("?x#y", "https://hub.example/a/b?x", true),
            ("../../../x", "https://hub.example/x", true),
            ("https://hub.example/x", "https://hub.example/x", false),
            ("//cdn.example/x", "https://cdn.example/x", false),
            ("/\\cdn.example/x", "https://cdn.example/x", false),
            ("https://cdn.example:8443/x", "https://cdn.example:8443/x", false),
        ] {
            let redirect = resolve(&from, location)?;
            assert_eq!((redirect.url.as_str(), redirect.relative), (wanted, relative), "{location}");
        }
        for bad in
            ["http://hub.example/x", "file:///etc/passwd", "https://[::1", "https://me:pw@hub.example/", "data:,x"]
        {
            assert!(resolve(&from, bad).is_err(), "{bad}");
        }
        Ok(())
    }

    /// Scheme, host and port: whatever is not all three is another's.
    #[test]
    fn the_token_is_for_the_origin_alone() -> Result<()> {
        let client = Client::new("https://hub.example/prefix", Some("secret"), Duration::from_secs(1))?;
        assert!(client.is_endpoint(&Url::parse("https://HUB.example:443/other")?));
        for other in
            ["http://hub.example/", "https://hub.example:444/", "https://hub.example.evil/", "https://a.hub.example/"]
        {
            assert!(!client.is_endpoint(&Url::parse(other)?), "{other}");
        }
        let url = client.url(["org", "refs/pr/1", "a?b#c%2F"]);
        assert_eq!(url.as_str(), "https://hub.example/prefix/org/refs%2Fpr%2F1/a%3Fb%23c%252F");
        assert!(!format!("{client:?}").contains("secret"));
        Ok(())
    }
}
