//! The looks a run takes at itself: who is impaired, whether the backlog falls, when it is over.

use super::{
    BUCKET_COUNT_MIN, BUCKET_TICKS, CALM_TICKS, FIRST_STEP, HEALTHY, Health, IMPAIRED, Mode, Roots, Run, Service,
    TICK_US, What,
};

impl Run<'_> {
    pub(super) fn tick(&mut self) {
        self.ticks += 1;
        self.push(self.now + TICK_US, What::Tick, 0, 0);
        if self.recent.len() >= CALM_TICKS as usize {
            self.recent.pop_front();
        }
        let (backlog, worst) = self.backlog();
        let planned = self.window > IMPAIRED;
        self.count_busy(planned);
        if self.ticks.is_multiple_of(BUCKET_TICKS) {
            self.judge();
        }
        self.follow(backlog, worst);
        self.recent.push_back(Roots::default());
    }

    fn backlog(&self) -> (u64, (u64, usize)) {
        let of = |s: &Service| s.replicas.iter().map(|replica| replica.queue.len() as u64).sum::<u64>();
        let each = self.services.iter().enumerate().map(|(i, s)| (of(s) * self.compiled.thinning, i));
        let (mut total, mut worst) = (0, (0, 0));
        for (waiting, i) in each {
            total += waiting;
            if waiting > worst.0 {
                worst = (waiting, i);
            }
        }
        (total, worst)
    }

    fn count_busy(&mut self, planned: bool) {
        if !planned {
            return;
        }
        for (s, service) in self.services.iter_mut().enumerate() {
            let workers = self.compiled.services[s].workers;
            for replica in service.replicas.iter().filter(|r| !matches!(r.health, Health::Hung | Health::Down)) {
                service.busy += u64::from(replica.running);
                service.busy_ticks += u64::from(workers);
            }
        }
    }

    /// Closes the second: which services miss their objective, and for how long now.
    fn judge(&mut self) {
        for (s, service) in self.services.iter_mut().enumerate() {
            let fit = self.compiled.services[s].fit;
            let enough = service.count >= BUCKET_COUNT_MIN;
            let late = enough && u64::from(service.late) * 100 > u64::from(service.count);
            let errors = u64::from(service.errors) * 1_000_000;
            let wrong = |ppm: u32| errors > u64::from(ppm) * u64::from(service.count);
            let missed = (fit.p99_us.is_some() && late) || (enough && fit.errors_ppm.is_some_and(wrong));
            let away = !service.replicas.iter().any(|replica| replica.health == Health::Up);
            service.bad_for = if missed || away { service.bad_for + 1 } else { 0 };
            (service.count, service.late, service.errors) = (0, 0, 0);
        }
    }

    fn is_impaired(&self, s: usize) -> bool {
        let needed = self.compiled.input.config.impaired_for_ms.div_ceil(1_000).max(1);
        self.services[s].bad_for >= needed
    }

    fn follow(&mut self, backlog: u64, worst: (u64, usize)) {
        let config = &self.compiled.input.config;
        if let Mode::Healthy(length) = self.mode {
            self.over = self.now >= length;
            return;
        }
        let onset = config.warm_up_ms * 1_000;
        let begin = onset + config.onset_max_ms.min(self.compiled.input.since_onset_ms) * 1_000;
        if self.window == HEALTHY {
            self.healthy_backlog = self.healthy_backlog.max(backlog);
            if self.now >= onset {
                self.onset();
            }
        }
        if self.window == IMPAIRED && self.now >= begin {
            let known = |s: usize| self.compiled.input.impaired.contains(&self.compiled.services[s].fit.name);
            self.impaired_before = (0..self.services.len()).map(|s| self.services[s].bad_for > 0 || known(s)).collect();
            self.window = FIRST_STEP;
            self.progress.begin(self.now);
        }
        if self.window < FIRST_STEP {
            return;
        }
        if backlog > self.normal_backlog() {
            self.outcome.drained_us = self.now - self.progress.began;
        }
        if worst.0 > self.outcome.backlog_peak {
            (self.outcome.backlog_peak, self.outcome.backlog_at) = worst;
        }
        self.look_for_growth();
        self.advance_plan();
        self.look_for_the_end(backlog);
    }

    fn onset(&mut self) {
        self.window = IMPAIRED;
        // A hostile run may delay a peer for good: what misses its objective without any fault is no sign of one.
        self.chronic = self.services.iter().map(|service| service.bad_for > 0).collect();
        self.healthy_good = self.answered_well();
        let compiled = self.compiled;
        for op in &compiled.settings {
            self.set(*op, None);
        }
        for (s, replica, health) in &compiled.impairments {
            self.impair(*s, *replica, *health);
        }
    }

    /// Root requests answered lately, and of these answered well.
    fn answered_well(&self) -> (u64, u64) {
        self.recent.iter().fold((0, 0), |sum, roots| (sum.0 + roots.answered, sum.1 + roots.good))
    }

    fn normal_backlog(&self) -> u64 {
        (2 * self.healthy_backlog).max(8 * self.compiled.thinning)
    }

    fn look_for_growth(&mut self) {
        for s in 0..self.services.len() {
            if self.is_impaired(s) && !self.impaired_before[s] && !self.outcome.grown.contains(&s) {
                self.outcome.grown.push(s);
            }
        }
    }

    fn look_for_the_end(&mut self, backlog: u64) {
        let config = &self.compiled.input.config;
        let Some(ended) = self.progress.ended else { return };
        let (answered, good) = self.answered_well();
        let (usual_answered, usual_good) = self.healthy_good;
        let healthy = (0..self.services.len()).all(|s| !self.is_impaired(s) || self.chronic[s]);
        // Well again means as well as without the fault: 95% of the share that was answered well then.
        let well = good * usual_answered * 100 >= answered * usual_good * 95;
        let normal = healthy && well && backlog <= self.normal_backlog();
        self.normal_ticks = if normal { self.normal_ticks + 1 } else { 0 };
        let waited = self.now - ended;
        if self.normal_ticks == 0 {
            self.outcome.converged_us = None;
        } else if self.normal_ticks == CALM_TICKS {
            self.outcome.converged_us = Some(self.now - self.progress.began);
        }
        // Normal must also outlast everything that could still postpone an effect.
        if self.outcome.converged_us.is_some() && waited >= self.horizon_us {
            self.over = true;
            return;
        }
        if self.mode == Mode::Plan {
            self.over = waited >= config.settle_ms.min(config.t_budget_ms) * 1_000;
            return;
        }
        if !self.progress.trigger_gone && waited >= config.settle_ms * 1_000 {
            self.progress.trigger_gone = true;
            let away: Vec<(usize, usize, Health)> = self.compiled.impairments.clone();
            for (s, replica, _) in away {
                self.impair(s, replica, Health::Up);
            }
        }
        self.over = waited >= config.t_budget_ms * 10_000;
    }
}
