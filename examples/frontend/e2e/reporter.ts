import type { FullResult, Reporter, TestCase, TestResult } from '@playwright/test/reporter';

/** A line for each test, "ok" or "not ok", which scripts/check.sh counts. */
export default class LineReporter implements Reporter {
  onTestEnd(test: TestCase, result: TestResult): void {
    const name = test.titlePath().slice(2).join(' > ');
    if (result.status === 'skipped') return;
    console.log(`${result.status === test.expectedStatus ? 'ok' : 'not ok'} - ${name} (${result.duration} ms)`);
    for (const { stack, message } of result.status === test.expectedStatus ? [] : result.errors) {
      console.log((stack ?? message ?? '').replace(/^/gm, '# '));
    }
  }

  onError(error: { message?: string }): void {
    console.log(`not ok - ${error.message ?? 'error'}`);
  }

  onEnd(result: FullResult): void {
    if (result.status !== 'passed') console.log(`# ended: ${result.status}`);
  }

  printsToStdio(): boolean {
    return true;
  }
}
