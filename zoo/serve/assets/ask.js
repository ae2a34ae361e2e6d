const most = Number(document.getElementById('form').dataset.most), TRIES = 5;
const pause = seconds => new Promise(done => setTimeout(done, 1000 * seconds));

async function ask(file) {
  if (file.size > most) throw new Error(`larger than ${Math.floor(most / 1048576)} MiB`);
  const body = new FormData();
  body.append('image', file);
  for (let tried = 1; ; tried++) {
    let response;
    try {
      response = await fetch('predict', {method: 'POST', body});
    } catch {
      throw new Error('the server cannot be reached, or ended the connection');
    }
    if ((response.status === 429 || response.status === 503) && tried < TRIES) {
      await pause(Number(response.headers.get('retry-after')) || 1);
      continue;
    }
    const answer = await response.json().catch(() => ({error: `status ${response.status}`}));
    if (!response.ok) throw new Error(answer.error);
    return answer;
  }
}

