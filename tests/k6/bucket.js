// The load test of the /bucket API: one new client asks 3 times a second for 34 s and 5 times a second for 10 s, which is
// all within one window of 60 s. 100 of its some 150 requests are admitted and the rest denied.
//
//   k6 run tests/k6/bucket.js                                  # against nginx of compose.yaml
//   k6 run -e BASE_URL=http://localhost:20001 tests/k6/bucket.js
import http from 'k6/http';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const base = __ENV.BASE_URL || 'http://localhost:9999';
const success200 = new Counter('success200');
const status429 = new Counter('status429');
const other = new Counter('other');

const rate = (rate, duration, startTime) => ({
  executor: 'constant-arrival-rate', rate, timeUnit: '1s', duration, startTime, preAllocatedVUs: 10, maxVUs: 50,
});

export const options = {
  scenarios: { within: rate(3, '34s', '0s'), beyond: rate(5, '10s', '34s') },
  thresholds: { success200: ['count>=100'], status429: ['count>=50'] },
};

export function setup() {
  const body = JSON.stringify({ name: `k6-${Date.now()}-${Math.random()}` });
  const answer = http.post(`${base}/bucket`, body, { headers: { 'Content-Type': 'application/json' } });
  if (answer.status !== 201) {
    throw new Error(`POST /bucket: ${answer.status} ${answer.body}`);
  }
  return answer.json('id');
}

export default function (id) {
  const answer = http.get(`${base}/example`, { headers: { 'X-Api-Id': id } });
  success200.add(answer.status === 200 ? 1 : 0);
  status429.add(answer.status === 429 ? 1 : 0);
  other.add(answer.status === 200 || answer.status === 429 ? 0 : 1);
  check(answer, {
    'it says what it decided': () => answer.status === 200
      ? answer.json('message') === 'Hello, World!'
      : answer.status === 429 && answer.json('error') === 'Rate limit exceeded',
  });
}

// For programs too, if SUMMARY names a file.
export function handleSummary(data) {
  const count = (name) => (data.metrics[name] ? data.metrics[name].values.count : 0);
  const counts = { success200: count('success200'), status429: count('status429'), other: count('other') };
  const summary = { stdout: `${JSON.stringify(counts)}\n` };
  if (__ENV.SUMMARY) {
    summary[__ENV.SUMMARY] = JSON.stringify({ ...counts, checks: data.metrics.checks.values.rate });
  }
  return summary;
}
