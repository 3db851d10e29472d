(function () {
  "use strict";
  var specs = JSON.parse(document.getElementById("figures").textContent);
  var options = { actions: false, renderer: "svg", ast: true };
  document.documentElement.classList.add("scripted");
  Object.keys(specs).forEach(function (name) {
    var place = document.getElementById("live-" + name);
    window.vegaEmbed(place, specs[name], options).catch(function (error) {
      // The still picture shows the same figure; only the tooltips are lost.
      place.style.display = "none";
      place.previousElementSibling.style.display = "block";
      console.error(error);
    });
  });
})();
