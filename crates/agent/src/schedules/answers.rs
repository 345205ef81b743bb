//! Which answer to an annotation is written when: new ones before those that failed, of one pod only the last one, and none
//! that the API refuses for good a second time.

use std::collections::HashSet;
use std::time::Duration;

use checkpoint_keeper_core::schedule::Answer;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::budget::{Budget, MESSAGES};
use crate::api_write::WriteError;
use crate::state::AgentState;

/// How often an answer that could not be written is tried again, and how often at most.
const AGAIN: Duration = Duration::from_secs(5);
const TRIES: u32 = 60;

/// So many are written at once, so that one that waits for its reply holds up no other.
const AT_ONCE: usize = 4;

/// Writes answers with `write`, for as long as it is polled.
pub(super) async fn write_answers<W>(
    mut answers: mpsc::UnboundedReceiver<Answer>,
    write: impl Fn(Answer) -> W,
    state: &AgentState,
) where
    W: Future<Output = Result<(), WriteError>>,
{
    let mut queue = Queue::default();
    let mut budget = Budget::new(MESSAGES, Instant::now().into_std());
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < AT_ONCE
            && let Some(waiting) = queue.next(Instant::now())
        {
            let written = write(waiting.answer.clone());
            under_way.push(async { (waiting, written.await) });
        }
        let wakes = queue.wakes().filter(|_| under_way.len() < AT_ONCE);
        let (waiting, written) = tokio::select! {
            answer = answers.recv() => match answer {
                Some(answer) => {
                    queue.add(answer, Instant::now());
                    continue;
                }
                None => return,
            },
            Some(ended) = under_way.next(), if !under_way.is_empty() => ended,
            () = sleep_until(wakes.unwrap_or_else(Instant::now)), if wakes.is_some() => continue,
        };
        let Some(failed) = queue.end(waiting, written, Instant::now()) else { continue };
        let Failed { answer, error, is_over } = failed;
        let (namespace, pod) = (&answer.namespace, &answer.pod);
        if budget.take(namespace, Instant::now().into_std()) {
            let again = if is_over { "it stays as it is" } else { "it is tried again" };
            tracing::warn!("the annotation of pod {namespace}/{pod} cannot be answered: {error}; {again}");
        } else {
            state.left_out(0, 1);
        }
    }
}

/// An answer that waits.
#[derive(Debug)]
struct Waiting {
    answer: Answer,
    tries: u32,
    not_before: Instant,
}

/// Answers that wait or are being written.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// The pods whose answer is being written.
    writing: HashSet<String>,
}

/// What is to be logged of an answer that was not written.
#[derive(Debug)]
struct Failed {
    answer: Answer,
    error: WriteError,
    /// Whether it is not tried again.
    is_over: bool,
}

impl Queue {
    /// Adds one, in the place of an earlier one of its pod.
    fn add(&mut self, answer: Answer, now: Instant) {
        self.waiting.retain(|other| other.answer.pod_uid != answer.pod_uid);
        self.waiting.push(Waiting { answer, tries: 0, not_before: now });
    }

    /// Takes the one that is to be written now.
    fn next(&mut self, now: Instant) -> Option<Waiting> {
        let is_due = |one: &Waiting| one.not_before <= now && !self.writing.contains(&one.answer.pod_uid);
        let due = self.waiting.iter().enumerate().filter(|(_, one)| is_due(one));
        let (at, _) = due.min_by_key(|(_, one)| one.tries)?;
        let next = self.waiting.remove(at);
        self.writing.insert(next.answer.pod_uid.clone());
        Some(next)
    }

    /// When the next one is to be written, unless one is added or ends before.
    fn wakes(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().filter(|one| !self.writing.contains(&one.answer.pod_uid));
        waiting.map(|one| one.not_before).min()
    }

    /// Notes what came of one. Returns what is to be logged: the first failure, and that it is given up.
    fn end(&mut self, one: Waiting, written: Result<(), WriteError>, now: Instant) -> Option<Failed> {
        let Waiting { answer, tries, .. } = one;
        self.writing.remove(&answer.pod_uid);
        let error = written.err()?;
        let verdict = verdict(&error);
        if verdict == Verdict::Gone {
            return None;
        }
        let is_over = verdict == Verdict::ForGood || tries + 1 >= TRIES;
        if !is_over && self.waiting.iter().all(|other| other.answer.pod_uid != answer.pod_uid) {
            let not_before = now + AGAIN;
            self.waiting.push(Waiting { answer: answer.clone(), tries: tries + 1, not_before });
        }
        (is_over || tries == 0).then_some(Failed { answer, error, is_over })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The pod is gone, or another one has its name.
    Gone,
    /// The API refuses it, and will again: the pod's annotations are too large with it, for one.
    ForGood,
    /// Later it may succeed.
    Again,
}

fn verdict(error: &WriteError) -> Verdict {
    match error {
        WriteError::Api(kube::Error::Api(status)) => match status.code {
            404 | 409 => Verdict::Gone,
            400 | 413 | 422 => Verdict::ForGood,
            _ => Verdict::Again,
        },
        WriteError::Api(_) | WriteError::Late => Verdict::Again,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kube::core::Status;

    use super::*;

    fn answer(pod: &str, text: &str) -> Answer {
        Answer {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            pod_uid: format!("uid of {pod}"),
            text: text.to_owned(),
            is_over: true,
        }
    }

    fn refused(code: u16) -> WriteError {
        WriteError::Api(kube::Error::Api(Box::new(Status::failure("no", "").with_code(code))))
    }

    /// What was written within that time, with the seconds at which it was: the pods' names begin with the code that the API
    /// refuses them with.
    async fn written(pods: Vec<String>, seconds: u64) -> Vec<(String, u64)> {
        let began = Instant::now();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = mpsc::unbounded_channel();
        for pod in &pods {
            sender.send(answer(pod, "a")).unwrap();
        }
        let write = |answer: Answer| {
            seen.lock().unwrap().push((answer.pod.clone(), began.elapsed().as_secs()));
            let code = answer.pod.split('-').next().and_then(|code| code.parse().ok());
            std::future::ready(code.map_or(Ok(()), |code| Err(refused(code))))
        };
        let state = AgentState::new();
        let _ =
            tokio::time::timeout(Duration::from_secs(seconds), write_answers(receiver, write, &state)).await;
        drop(sender);
        Arc::try_unwrap(seen).unwrap().into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_api_refuses_for_good_is_written_once_and_what_may_succeed_again_and_again() {
        for (code, times) in
            [(400, 1), (413, 1), (422, 1), (404, 1), (409, 1), (500, 60), (429, 60), (403, 60)]
        {
            let seen = written(vec![format!("{code}-web")], 3_600).await;
            assert_eq!(seen.len(), times, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_fails_delays_no_other_one() {
        let pods = (0..100).map(|number| format!("500-{number}")).chain(["web".to_owned()]).collect();
        let seen = written(pods, 4).await;
        assert!(seen.contains(&("web".to_owned(), 0)), "{seen:?}");
        // Nor does one without a reply.
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(answer("hangs", "a")).unwrap();
        sender.send(answer("web", "a")).unwrap();
        let seen = Mutex::new(Vec::new());
        let write = async |answer: Answer| {
            if answer.pod == "hangs" {
                std::future::pending::<()>().await;
            }
            seen.lock().unwrap().push(answer.pod);
            Ok(())
        };
        let state = AgentState::new();
        let _ = tokio::time::timeout(Duration::from_secs(1), write_answers(receiver, write, &state)).await;
        assert_eq!(*seen.lock().unwrap(), ["web"]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_one_pod_the_last_answer_counts_and_no_two_are_written_at_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(answer("web", "a"), now);
        let first = queue.next(now).unwrap();
        queue.add(answer("web", "b"), now);
        assert!(queue.next(now).is_none() && queue.wakes().is_none(), "the first is being written");
        assert!(queue.end(first, Err(refused(500)), now).is_some());
        let second = queue.next(now).unwrap();
        assert_eq!(second.answer.text, "b");
        assert!(queue.end(second, Ok(()), now).is_none());
        assert!(queue.next(now + AGAIN).is_none(), "an older answer is not written over it");
        // What fails again and again is told when that begins, and when it is given up.
        queue.add(answer("web", "c"), now);
        let mut at = now;
        let mut told = 0;
        while let Some(one) = queue.next(at) {
            told += usize::from(queue.end(one, Err(refused(500)), at).is_some());
            at += AGAIN;
        }
        assert_eq!(told, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn lines_about_answers_have_a_budget() {
        let (sender, receiver) = mpsc::unbounded_channel();
        for number in 0..1_000 {
            sender.send(answer(&format!("web-{number}"), "a")).unwrap();
        }
        let state = AgentState::new();
        let write = |_| std::future::ready(Err(refused(422)));
        let _ = tokio::time::timeout(Duration::from_secs(1), write_answers(receiver, write, &state)).await;
        assert_eq!(state.read(|observed| observed.left_out), (0, 900));
    }
}
