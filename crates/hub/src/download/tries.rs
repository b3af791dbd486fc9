//! How often something is tried, and how long is waited in between.

use std::time::Duration;

use super::env::Patience;
use super::error::{FetchError, Result};
use super::http::{Failure, Passing};
use super::progress::{Event, Progress};

/// Counts the failures in a row.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    patience: &'a Patience,
    url: &'a str,
    failures: u32,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(patience: &'a Patience, url: &'a str) -> Self {
        Self { patience, url, failures: 0 }
    }

    /// Something was achieved: the count begins anew.
    pub(crate) fn begin_anew(&mut self) {
        self.failures = 0;
    }

    /// Pauses if another try is worth it.
    ///
    /// # Errors
    /// It is not: the failure is final, there were enough tries, or the server asks for too long a pause.
    pub(crate) fn failed(&mut self, failure: Failure, progress: Progress<'_>) -> Result<()> {
        let passing = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing(passing) => passing,
        };
        self.failures += 1;
        let url = self.url.to_owned();
        if let (Some(status), Some(pause)) = (passing.status, passing.pause)
            && pause > self.patience.longest_pause
        {
            return Err(FetchError::Busy { url, status, seconds: pause.as_secs() });
        }
        if self.failures >= self.patience.attempts {
            return Err(FetchError::Unreachable { url, attempts: self.failures, source: passing.cause });
        }
        let pause = self.pause(&passing);
        progress(Event::Pausing { reason: &passing.cause.to_string(), pause });
        std::thread::sleep(pause);
        Ok(())
    }

    /// What the server asks for, else twice as long with each failure.
    fn pause(&self, passing: &Passing) -> Duration {
        let doubled = 1u32 << (self.failures - 1).min(16);
        passing.pause.unwrap_or_else(|| (self.patience.first_pause * doubled).min(self.patience.longest_pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(pause: Option<Duration>) -> Failure {
        Failure::Passing(Passing { cause: "busy".into(), status: Some(429), pause })
    }

    #[test]
    fn pauses_double_and_end() {
        let ms = Duration::from_millis;
        let patience = Patience { attempts: 5, first_pause: ms(1), longest_pause: ms(3), ..Patience::default() };
        let mut tries = Tries::new(&patience, "u");
        let mut pauses = Vec::new();
        let mut note = |event: Event<'_>| {
            if let Event::Pausing { pause, .. } = event {
                pauses.push(pause);
            }
        };
        tries.failed(busy(None), &mut note).unwrap();
        tries.failed(busy(None), &mut note).unwrap();
        tries.failed(busy(None), &mut note).unwrap();
        tries.failed(busy(Some(ms(0))), &mut note).unwrap();
        let error = tries.failed(busy(None), &mut note).unwrap_err();
        assert!(matches!(error, FetchError::Unreachable { attempts: 5, .. }));
        tries.begin_anew();
        tries.failed(busy(None), &mut note).unwrap();
        let error = tries.failed(busy(Some(ms(4000))), &mut note).unwrap_err();
        assert!(matches!(error, FetchError::Busy { status: 429, seconds: 4, .. }));
        assert_eq!(pauses, [ms(1), ms(2), ms(3), ms(0), ms(1)]);
    }
}
