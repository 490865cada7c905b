//! The queue of a controller: every object is in it at most once, and at most one worker processes it. Objects that depend on
//! something that may hang, such as a broker, form a group with its own workers. Within a group, namespaces take turns. So neither
//! a broker that hangs nor a namespace with a thousand broken objects delays others. An object that failed is held back until its
//! pause is over, whoever queues it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The place of an object in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// What may delay the object, such as the name of a broker. Groups do not wait for each other.
    pub group: String,
    /// The lane within the group, usually the namespace. Lanes take turns.
    pub turn: String,
}

#[derive(Debug)]
enum Position {
    /// It has been waiting for a worker since this time.
    Waiting(Instant),
    /// A worker of this group processes it. `again` is when it is to be processed once more; `is_outdated` says that its pause was
    /// ended meanwhile, so that a failure says nothing about the next attempt.
    Running { group: String, again: Option<Instant>, is_outdated: bool },
}

#[derive(Debug)]
struct Group<K> {
    running: usize,
    lanes: HashMap<String, VecDeque<K>>,
    /// The lanes that are not empty, in the order of their turns.
    turns: VecDeque<String>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Alarm {
    at: Instant,
    number: u64,
}

/// The queue. The time is a parameter; nothing here sleeps.
#[derive(Debug)]
pub struct Queue<K> {
    workers: usize,
    positions: HashMap<K, Position>,
    groups: HashMap<String, Group<K>>,
    running: usize,
    alarms: BinaryHeap<Reverse<Alarm>>,
    /// The object of each alarm. An alarm without an object was replaced by an earlier one.
    sleeping: HashMap<u64, K>,
    alarm_of: HashMap<K, (u64, Instant)>,
    last_alarm: u64,
    /// The objects that are not handed out before a time.
    held_back: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue. Each group has this number of workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            positions: HashMap::new(),
            groups: HashMap::new(),
            running: 0,
            alarms: BinaryHeap::new(),
            sleeping: HashMap::new(),
            alarm_of: HashMap::new(),
            last_alarm: 0,
            held_back: HashMap::new(),
        }
    }

    /// Ends the pause of an object that failed: it is another one now, or what refused it is.
    pub fn release(&mut self, key: &K) {
        self.held_back.remove(key);
        if let Some(Position::Running { is_outdated, .. }) = self.positions.get_mut(key) {
            *is_outdated = true;
        }
    }

    /// Queues an object. It is handed out when its turn comes, but not before `at`, and not while it is held back.
    pub fn push(&mut self, key: K, lane: impl FnOnce(&K) -> Lane, at: Instant, now: Instant) {
        let at = self.held_back.get(&key).map_or(at, |until| at.max(*until));
        match self.positions.get_mut(&key) {
            Some(Position::Waiting(_)) => {}
            Some(Position::Running { again, .. }) => *again = Some(again.map_or(at, |before| before.min(at))),
            None if at <= now => {
                self.cancel(&key);
                let lane = lane(&key);
                self.wait(key, lane, at);
            }
            None if self.alarm_of.get(&key).is_some_and(|(_, before)| *before <= at) => {}
            None => {
                self.cancel(&key);
                self.set_alarm(key, at);
            }
        }
    }

    /// Hands out the next object, with the time that it has waited.
    pub fn pop(&mut self, lane: impl Fn(&K) -> Lane, now: Instant) -> Option<(K, Duration)> {
        while let Some(Reverse(alarm)) = self.alarms.peek()
            && alarm.at <= now
        {
            let Reverse(alarm) = self.alarms.pop()?;
            if let Some(key) = self.sleeping.remove(&alarm.number) {
                self.alarm_of.remove(&key);
                let lane = lane(&key);
                self.wait(key, lane, alarm.at);
            }
        }
        let workers = self.workers;
        let (name, group) =
            self.groups.iter_mut().find(|(_, group)| group.running < workers && !group.turns.is_empty())?;
        let turn = group.turns.pop_front()?;
        let waiting = group.lanes.get_mut(&turn)?;
        let key = waiting.pop_front()?;
        if waiting.is_empty() {
            group.lanes.remove(&turn);
        } else {
            group.turns.push_back(turn);
        }
        group.running += 1;
        self.running += 1;
        self.held_back.remove(&key);
        let running = Position::Running { group: name.clone(), again: None, is_outdated: false };
        let since = match self.positions.insert(key.clone(), running) {
            Some(Position::Waiting(since)) => since,
            _ => now,
        };
        Some((key, now.duration_since(since)))
    }

    /// Notes that a worker has finished with an object. If the object was queued in the meantime, it is queued for that time,
    /// otherwise for `then`.
    pub fn done(&mut self, key: &K, then: Option<Instant>, lane: impl FnOnce(&K) -> Lane, now: Instant) {
        let Some(Position::Running { group: name, again, .. }) = self.positions.remove(key) else { return };
        self.running -= 1;
        if let Some(group) = self.groups.get_mut(&name) {
            group.running -= 1;
            if group.running == 0 && group.turns.is_empty() {
                self.groups.remove(&name);
            }
        }
        if let Some(at) = again.or(then) {
            self.push(key.clone(), lane, at, now);
        }
    }

    /// Like [`Self::done`] for an object that failed: it is not processed again before `until`, whoever queues it.
    pub fn failed(&mut self, key: &K, until: Instant, lane: impl FnOnce(&K) -> Lane, now: Instant) {
        if let Some(Position::Running { is_outdated: false, .. }) = self.positions.get(key) {
            self.held_back.insert(key.clone(), until);
        }
        self.done(key, Some(until), lane, now);
    }

    /// When [`Self::pop`] may hand out an object that is not ready now.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse(alarm)| alarm.at)
    }

    /// How many objects wait for a worker.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.positions.len() - self.running
    }

    /// How long the oldest object has waited for a worker.
    #[must_use]
    pub fn oldest(&self, now: Instant) -> Duration {
        let fronts = self.groups.values().flat_map(|group| group.lanes.values()).filter_map(VecDeque::front);
        let waiting = fronts.filter_map(|key| match self.positions.get(key) {
            Some(Position::Waiting(since)) => Some(now.duration_since(*since)),
            _ => None,
        });
        waiting.max().unwrap_or_default()
    }

    fn wait(&mut self, key: K, lane: Lane, since: Instant) {
        self.positions.insert(key.clone(), Position::Waiting(since));
        let empty = || Group { running: 0, lanes: HashMap::new(), turns: VecDeque::new() };
        let group = self.groups.entry(lane.group).or_insert_with(empty);
        if !group.lanes.contains_key(&lane.turn) {
            group.turns.push_back(lane.turn.clone());
        }
        group.lanes.entry(lane.turn).or_default().push_back(key);
    }

    fn set_alarm(&mut self, key: K, at: Instant) {
        self.last_alarm += 1;
        self.alarms.push(Reverse(Alarm { at, number: self.last_alarm }));
        self.sleeping.insert(self.last_alarm, key.clone());
        self.alarm_of.insert(key, (self.last_alarm, at));
    }

    fn cancel(&mut self, key: &K) {
        if let Some((number, _)) = self.alarm_of.remove(key) {
            self.sleeping.remove(&number);
        }
        // The heap must not consist mostly of replaced alarms.
        if self.alarms.len() > 64 && self.alarms.len() > 2 * self.sleeping.len() {
            self.alarms.retain(|Reverse(alarm)| self.sleeping.contains_key(&alarm.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(key: &&'static str) -> Lane {
        let (group, rest) = key.split_once(':').unwrap_or_default();
        Lane { group: group.into(), turn: rest.split('/').next().unwrap_or_default().into() }
    }

    fn take(queue: &mut Queue<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop(lane, now).map(|(key, _)| key)).collect()
    }

    #[test]
    fn namespaces_take_turns() {
        let (mut queue, now) = (Queue::new(10), Instant::now());
        for key in [":many/1", ":many/2", ":many/3", ":few/1", ":many/1"] {
            queue.push(key, lane, now, now);
        }
        assert_eq!(queue.depth(), 4, "queueing an object twice makes no difference");
        assert_eq!(take(&mut queue, now), [":many/1", ":few/1", ":many/2", ":many/3"]);
    }

    #[test]
    fn a_group_that_hangs_delays_no_other_group() {
        let (mut queue, now) = (Queue::new(2), Instant::now());
        for key in ["hangs:a/1", "hangs:b/1", "hangs:c/1"] {
            queue.push(key, lane, now, now);
        }
        assert_eq!(take(&mut queue, now), ["hangs:a/1", "hangs:b/1"]);
        queue.push("other:a/1", lane, now, now);
        assert_eq!(take(&mut queue, now), ["other:a/1"]);
        queue.done(&"hangs:a/1", None, lane, now);
        assert_eq!(take(&mut queue, now), ["hangs:c/1"]);
    }

    #[test]
    fn an_object_queued_while_processed_is_processed_again() {
        let (mut queue, now) = (Queue::new(2), Instant::now());
        queue.push(":a/1", lane, now, now);
        assert_eq!(take(&mut queue, now), [":a/1"]);
        queue.push(":a/1", lane, now, now);
        queue.push(":a/1", lane, now, now);
        assert_eq!(take(&mut queue, now), [""; 0], "no two workers process one object");
        queue.done(&":a/1", Some(now + Duration::from_secs(60)), lane, now);
        assert_eq!(take(&mut queue, now), [":a/1"]);
        queue.done(&":a/1", None, lane, now);
        assert_eq!((queue.depth(), queue.wake_at()), (0, None));
    }

    #[test]
    fn an_object_is_handed_out_at_its_time_or_when_queued() {
        let (mut queue, now) = (Queue::new(2), Instant::now());
        let then = now + Duration::from_secs(60);
        for key in [":a/1", ":a/2"] {
            queue.push(key, lane, now, now);
            assert_eq!(take(&mut queue, now), [key]);
            queue.done(&key, Some(then), lane, now);
        }
        assert_eq!((queue.depth(), queue.wake_at()), (0, Some(then)));
        queue.push(":a/2", lane, now, now);
        assert_eq!(take(&mut queue, now), [":a/2"]);
        queue.done(&":a/2", None, lane, now);
        assert_eq!(take(&mut queue, then), [":a/1"], "a replaced alarm has no effect");
    }

    #[test]
    fn an_object_that_is_held_back_waits_whoever_queues_it() {
        let (mut queue, now) = (Queue::new(2), Instant::now());
        let then = now + Duration::from_secs(60);
        queue.push(":a/1", lane, now, now);
        assert_eq!(take(&mut queue, now), [":a/1"]);
        queue.push(":a/1", lane, now, now);
        queue.failed(&":a/1", then, lane, now);
        queue.push(":a/1", lane, now, now);
        assert_eq!(take(&mut queue, now), [""; 0], "it was queued while it was processed, and after that");
        assert_eq!(take(&mut queue, then), [":a/1"]);
        let later = then + Duration::from_secs(60);
        queue.failed(&":a/1", later, lane, then);
        queue.release(&":a/1");
        queue.push(":a/1", lane, then, then);
        assert_eq!(take(&mut queue, then), [":a/1"], "what it failed for has changed");
        queue.release(&":a/1");
        queue.push(":a/1", lane, then, then);
        queue.failed(&":a/1", later, lane, then);
        assert_eq!(take(&mut queue, then), [":a/1"], "it has changed while it was processed");
        queue.done(&":a/1", None, lane, then);
        assert!(queue.held_back.is_empty());
    }

    #[test]
    fn alarms_do_not_accumulate() {
        let (mut queue, start) = (Queue::new(1), Instant::now());
        queue.push(":a/1", lane, start, start);
        assert_eq!(queue.oldest(start + Duration::from_secs(3)), Duration::from_secs(3));
        for _ in 0..1000 {
            queue.push(":a/1", lane, start, start);
            assert_eq!(take(&mut queue, start).len(), 1);
            queue.done(&":a/1", Some(start + Duration::from_secs(600)), lane, start);
        }
        assert!(queue.alarms.len() < 100);
        assert_eq!(queue.oldest(start), Duration::ZERO);
    }

    #[test]
    fn an_object_queued_for_later_is_handed_out_once() {
        let (mut queue, now) = (Queue::new(1), Instant::now());
        let (soon, later) = (now + Duration::from_millis(500), now + Duration::from_secs(9));
        queue.push(":a/1", lane, later, now);
        queue.push(":a/1", lane, soon, now);
        queue.push(":a/1", lane, later, now);
        assert_eq!(take(&mut queue, now), [""; 0]);
        assert_eq!(take(&mut queue, soon), [":a/1"]);
        queue.push(":a/1", lane, later, soon);
        queue.done(&":a/1", None, lane, soon);
        assert_eq!((take(&mut queue, soon), queue.wake_at()), (vec![], Some(later)));
    }
}
