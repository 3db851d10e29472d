(function () {
  "use strict";
  var options = { actions: false, renderer: "svg", ast: true };
  var NARROW = 560, FRAME = 40, GAP = 4;
  document.documentElement.classList.add("scripted");

  // Vega-Lite fits a single plot into its container, but not panels beside one another.
  function fitted(spec, width) {
    var columns = width < NARROW ? Math.min(2, spec.columns) : spec.columns;
    var panel = Math.floor((width - GAP) / columns) - FRAME;
    return Object.assign({}, spec, {
      columns: columns, spec: Object.assign({}, spec.spec, { width: panel })
    });
  }

  function draw(place, spec) {
    return window.vegaEmbed(place, spec, options).catch(function (error) {
      // The still picture shows the same figure; only the tooltips are lost.
      var still = place.previousElementSibling;
      if (still) {
        place.style.display = "none";
        still.style.display = "block";
      }
      console.error(error);
    });
  }

  function show(name, spec) {
    var place = document.getElementById("live-" + name), drawn = 0;
    if (!spec.facet) {
      draw(place, spec);
      return;
    }
    // A place that is not shown has no width; it is drawn once it is shown.
    new ResizeObserver(function () {
      if (place.clientWidth && place.clientWidth !== drawn) {
        drawn = place.clientWidth;
        draw(place, fitted(spec, drawn));
      }
    }).observe(place);
  }

  window.showFigures = function (specs) {
    Object.keys(specs).forEach(function (name) { show(name, specs[name]); });
  };
  window.showFigures(JSON.parse(document.getElementById("figures").textContent));
})();
