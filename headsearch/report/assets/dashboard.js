// What the pages of the dashboard do in the browser alone: title and focus when another view is opened.
window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.headsearch = {
  arrived: function (title) {
    if (window.headsearchTheme) window.headsearchTheme();
    document.title = title;
    const main = document.getElementById("main");
    // Not at first: a reader who has just opened the page starts at its beginning.
    if (main && window.headsearchArrived) {
      main.focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
    window.headsearchArrived = true;
    return title;
  },
};
