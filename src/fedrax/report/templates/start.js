Tables.start();
Exports.start();
Charts.start();
Maps.start();
