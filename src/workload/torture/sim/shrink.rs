//! Leaves out of a plan what its failure does not need.

use super::plan::Plan;
use super::simulation::run;

/// Runs that it may take.
const RUNS_MAX: u32 = 3_000;

/// The least plan that was found to fail, and how it fails.
pub(super) fn shrink(plan: &Plan, problem: String) -> (Plan, String) {
    let mut least = Least { plan: plan.clone(), problem, runs: 0 };
    loop {
        let before = (least.plan.op_count(), least.plan.fault_count(), least.plan.epochs.len());
        least.leave_out_epochs();
        least.leave_out_faults();
        least.leave_out_ops();
        if before == (least.plan.op_count(), least.plan.fault_count(), least.plan.epochs.len())
            || least.runs >= RUNS_MAX
        {
            return (least.plan, least.problem);
        }
    }
}

struct Least {
    plan: Plan,
    problem: String,
    runs: u32,
}

impl Least {
    /// Takes a plan if it fails, too.
    fn takes(&mut self, plan: Plan) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let Some(problem) = run(&plan).problem else { return false };
        (self.plan, self.problem) = (plan, problem);
        true
    }

    fn leave_out_epochs(&mut self) {
        let mut index = self.plan.epochs.len();
        while index > 0 {
            index -= 1;
            let mut plan = self.plan.clone();
            plan.epochs.remove(index);
            self.takes(plan);
        }
    }

    fn leave_out_faults(&mut self) {
        for epoch in 0..self.plan.epochs.len() {
            let mut index = self.plan.epochs[epoch].faults.len();
            while index > 0 {
                index -= 1;
                let mut plan = self.plan.clone();
                plan.epochs[epoch].faults.remove(index);
                self.takes(plan);
            }
        }
    }

    /// Halves, then quarters, and so on down to single ones.
    fn leave_out_ops(&mut self) {
        for epoch in 0..self.plan.epochs.len() {
            let mut count = self.plan.epochs[epoch].ops.len().next_power_of_two() / 2;
            while count > 0 {
                let mut end = self.plan.epochs[epoch].ops.len();
                while end > 0 {
                    let start = end.saturating_sub(count);
                    let mut plan = self.plan.clone();
                    plan.epochs[epoch].ops.drain(start..end);
                    self.takes(plan);
                    end = start;
                }
                count /= 2;
            }
        }
    }
}
