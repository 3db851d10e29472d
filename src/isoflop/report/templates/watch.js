(function () {
  "use strict";
  var SECONDS = 3;
  var note = document.getElementById("contact"), drawn = {};
  var key = document.querySelector("main").dataset.key;
  var first = JSON.parse(document.getElementById("figures").textContent);

  function shown(name, spec) {
    var text = JSON.stringify(spec);
    if (drawn[name] === text) return false;
    drawn[name] = text;
    return true;
  }

  Object.keys(first).forEach(function (name) { shown(name, first[name]); });

  function take(news) {
    var fresh = {};
    Object.keys(news.parts).forEach(function (id) {
      var place = document.getElementById("part-" + id);
      var old = place.querySelector(".live");
      // Its height is kept until figures are drawn, so that nobody loses their place.
      place.style.minHeight = place.offsetHeight + "px";
      setTimeout(function () { place.style.minHeight = ""; }, 1000 * SECONDS);
      place.innerHTML = news.parts[id];
      if (id !== "now") {
        drawn = {};
      } else if (old && place.querySelector(".live")) {
        // Drawn over, not from nothing: it does not flicker.
        place.querySelector(".live").replaceWith(old);
      } else {
        delete drawn["curves-now"];
      }
    });
    Object.keys(news.specs).forEach(function (name) {
      if (document.getElementById("live-" + name) && shown(name, news.specs[name])) {
        fresh[name] = news.specs[name];
      }
    });
    window.showFigures(fresh);
    key = news.key;
    say(news.failure || "");
  }

  function say(text) {
    note.hidden = !text;
    note.textContent = text;
  }

  function look() {
    var query = new URLSearchParams(location.search);
    query.set("have", key);
    fetch("now?" + query).then(function (answer) {
      if (!answer.ok) throw new Error(answer.status);
      return answer.json();
    }).then(take).catch(function () {
      say("No answer from isoflop watch; this is how things stood when it last told.");
    }).finally(function () { setTimeout(look, SECONDS * 1000); });
  }

  look();
})();
