import { setTimeout as pause } from 'node:timers/promises';
import t from 'tap';
import { Visitor } from '../../demo/visitor.ts';

t.test('a visitor counts failures, and the longest time without a good answer', async (t) => {
  let answer = '200 served by app1';
  const visitor = new Visitor(async () => answer, 5);
  await pause(100);
  answer = '503 ';
  const fromMs = performance.now();
  await pause(300);
  answer = '404 ';
  const darkMs = performance.now() - fromMs;
  await pause(100);
  const { requests, failed, longestGap } = await visitor.end();
  t.ok(failed > 0 && failed < requests, `${failed} of ${requests}`);
  t.ok(longestGap * 1000 >= darkMs - 50, `${longestGap} s, of ${darkMs} ms`);
});

t.test('a request that gets no answer delays no other, and its failure counts', async (t) => {
  let first = true;
  const none = Promise.withResolvers<string>();
  const visitor = new Visitor(() => {
    if (!first) return Promise.resolve('200 ');
    first = false;
    return none.promise;
  }, 5);
  await pause(200);
  const end = visitor.end();
  none.reject(new Error('no answer in time'));
  const { requests, failed } = await end;
  t.ok(requests > 1, `${requests} requests`);
  t.equal(failed, 1);
});

t.test('a visit that throws at once is a failed one', async (t) => {
  const visitor = new Visitor(() => {
    throw new Error('no node runs');
  }, 5);
  await pause(50);
  const { requests, failed } = await visitor.end();
  t.ok(requests > 0);
  t.equal(failed, requests);
});

t.test('a site that never answers is one gap', async (t) => {
  const visitor = new Visitor(async () => 'ECONNREFUSED', 5);
  await pause(200);
  const { requests, failed, longestGap } = await visitor.end();
  t.equal(failed, requests);
  t.ok(longestGap >= 0.19, `${longestGap} s`);
});
