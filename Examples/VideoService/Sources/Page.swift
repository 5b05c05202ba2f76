/// The page at `/`: upload, progress, poster. Everything from the server is set as text, never as HTML.
enum Page {
    static let html = """
        <!doctype html>
        <html lang="en">
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>VideoService</title>
        <style>
          :root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); --go: #2f7d4f; --bad: #b3372f; }
          * { box-sizing: border-box; }
          [hidden] { display: none !important; }
          body { font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 0 auto; padding: 2.5rem 1.25rem; }
          h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
          p.lead { margin: 0 0 1.5rem; opacity: .75; }
          label.drop { display: block; border: 2px dashed var(--line); border-radius: .75rem; padding: 2rem; text-align: center; cursor: pointer; }
          label.drop:focus-within, label.drop.over { border-color: var(--go); }
          input[type=file] { position: absolute; opacity: 0; width: 1px; height: 1px; }
          article { border: 1px solid var(--line); border-radius: .75rem; padding: 1rem 1.25rem; margin-top: 1rem; }
          header { display: flex; gap: 1rem; align-items: baseline; justify-content: space-between; }
          header strong { overflow-wrap: anywhere; }
          .state { font-variant-numeric: tabular-nums; white-space: nowrap; }
          .succeeded .state { color: var(--go); } .failed .state, .cancelled .state, .expired .state { color: var(--bad); }
          progress { width: 100%; height: .75rem; margin: .6rem 0 .2rem; accent-color: var(--go); }
          .message { font-size: .9rem; opacity: .8; min-height: 1.4em; overflow-wrap: anywhere; }
          img { max-width: 100%; border-radius: .5rem; margin-top: .75rem; display: block; }
          nav a, button { font: inherit; margin: .75rem 1rem 0 0; display: inline-block; }
          button { border: 1px solid var(--line); background: none; border-radius: .4rem; padding: .15rem .8rem; cursor: pointer; }
        </style>
        <h1>VideoService</h1>
        <p class="lead">The server answers at once; a worker in another process does the heavy lifting.</p>
        <label class="drop"><input type="file" accept="video/*" multiple>Choose videos, or drop them here</label>
        <main></main>
        <template>
          <article>
            <header><strong></strong><span class="state">uploading</span></header>
            <progress max="1"></progress>
            <div class="message" role="status"></div>
            <button hidden>Cancel</button>
            <nav></nav>
          </article>
        </template>
        <script>
          const input = document.querySelector('input'), drop = document.querySelector('.drop');
          input.onchange = () => { [...input.files].forEach(upload); input.value = ''; };
          drop.ondragover = event => { event.preventDefault(); drop.classList.add('over'); };
          drop.ondragleave = () => drop.classList.remove('over');
          drop.ondrop = event => { event.preventDefault(); drop.classList.remove('over'); [...event.dataTransfer.files].forEach(upload); };

          function card(title) {
            const node = document.querySelector('template').content.cloneNode(true).firstElementChild;
            node.querySelector('strong').textContent = title;
            document.querySelector('main').prepend(node);
            return node;
          }
          function show(node, state, fraction, message) {
            node.className = state;
            node.querySelector('.state').textContent = state;
            const bar = node.querySelector('progress');
            if (fraction == null) bar.removeAttribute('value'); else bar.value = fraction;
            node.querySelector('.message').textContent = message || '';
          }
          function upload(file) {
            const node = card(file.name), request = new XMLHttpRequest();
            request.upload.onprogress = event => show(node, 'uploading', event.loaded / event.total, '');
            request.onerror = () => show(node, 'failed', 0, 'the upload did not reach the server');
            request.onload = () => {
              const answer = JSON.parse(request.responseText || '{}');
              if (request.status !== 202) return show(node, 'failed', 0, answer.error ? answer.error.message : 'error ' + request.status);
              remember(answer.id, file.name);
              follow(node, answer.id);
            };
            request.open('POST', '/upload');
            request.send(file);
          }
          function follow(node, id) {
            const events = new EventSource('/jobs/' + encodeURIComponent(id) + '/events'), cancel = node.querySelector('button');
            cancel.hidden = false;
            cancel.onclick = () => fetch('/jobs/' + encodeURIComponent(id), { method: 'DELETE' });
            events.addEventListener('update', event => {
              const job = JSON.parse(event.data), progress = job.progress || {};
              const ended = ['succeeded', 'failed', 'cancelled', 'expired'].includes(job.state);
              const lost = job.lost_workers ? ' (a worker died, another took over)' : '';
              const why = job.state === 'waiting' ? job.waiting_reason : progress.message;
              show(node, job.state, ended ? 1 : progress.fraction, (job.failure ? job.failure.message : why || '') + lost);
              if (!ended) return;
              cancel.hidden = true;
              if (job.state === 'succeeded') results(node, id.replace(/^video-/, ''), job.output);
            });
            events.addEventListener('end', () => events.close());
          }
          function results(node, video, report) {
            const base = '/videos/' + encodeURIComponent(video) + '/', nav = node.querySelector('nav');
            const poster = new Image(), sheet = new Image();
            poster.src = base + report.poster; poster.alt = 'Poster';
            sheet.src = base + report.contact_sheet; sheet.alt = 'Contact sheet';
            const link = document.createElement('a');
            link.href = base + report.video; link.textContent = 'Download the video'; link.download = '';
            const size = document.createElement('span');
            size.textContent = (report.input_bytes / 1e6).toFixed(1) + ' MB → ' + (report.output_bytes / 1e6).toFixed(1) + ' MB';
            nav.replaceChildren(link, size, poster, sheet);
          }
          function remember(id, name) {
            const known = JSON.parse(localStorage.videos || '[]');
            localStorage.videos = JSON.stringify([...known, { id, name }].slice(-20));
          }
          const asked = new URLSearchParams(location.search).get('job');
          const known = asked ? asked.split(",").map(id => ({ id, name: id })) : JSON.parse(localStorage.videos || '[]');
          for (const { id, name } of known) follow(card(name), id);
        </script>
        """
}
