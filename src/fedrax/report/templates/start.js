Tables.start();
Exports.start();
Charts.start();
