-- The houses of MADlib's manual, and the numbers that it prints.
DROP TABLE IF EXISTS houses, houses_linregr, houses_linregr_summary;
CREATE TABLE houses (id INT, tax INT, bedroom INT, bath FLOAT, price INT, size INT, lot INT);
INSERT INTO houses VALUES
  (1 , 590 , 2 , 1 , 50000 , 770 , 22100), (2 , 1050 , 3 , 2 , 85000 , 1410 , 12000), (3 , 20 , 3 , 1 , 22500 , 1060 , 3500),
  (4 , 870 , 2 , 2 , 90000 , 1300 , 17500), (5 , 1320 , 3 , 2 , 133000 , 1500 , 30000), (6 , 1350 , 2 , 1 , 90500 , 820 , 25700),
  (7 , 2790 , 3 , 2.5 , 260000 , 2130 , 25000), (8 , 680 , 2 , 1 , 142500 , 1170 , 22000), (9 , 1840 , 3 , 2 , 160000 , 1500 , 19000),
  (10 , 3680 , 4 , 2 , 240000 , 2790 , 20000), (11 , 1660 , 3 , 1 , 87000 , 1030 , 17500), (12 , 1620 , 3 , 2 , 118600 , 1250 , 20000),
  (13 , 3100 , 3 , 2 , 140000 , 1760 , 38000), (14 , 2070 , 2 , 3 , 148000 , 1550 , 14000), (15 , 650 , 3 , 1.5 , 65000 , 1450 , 12000);

SELECT madlib.linregr_train('houses', 'houses_linregr', 'price', 'ARRAY[1, tax, bath, size]');
SELECT * FROM houses_linregr;
--> [[-12849.4168959872, 28.9613922651765, 10181.6290712648, 50.516894915354], 0.768577580597443, [33453.0344331391, 15.8992104963997, 19437.7710925923, 32.928023174087], [-0.38410317968819, 1.82156166004184, 0.523806408809133, 1.53416118083605], [0.708223134615422, 0.0958005827189772, 0.610804093526536, 0.153235085548186], 9002.50457085737, 15, 0, [[1119105512.78479, 217782.067878023, -283344228.394562, -616679.69319088], "...", "...", "..."]]
SELECT * FROM houses_linregr_summary;
--> ["linregr", "houses", "houses_linregr", "price", "ARRAY[1, tax, bath, size]", 15, 0, null]
SELECT unnest(ARRAY['intercept', 'tax', 'bath', 'size']) AS attribute, unnest(coef) AS coefficient FROM houses_linregr;
--> ["intercept", -12849.4168959872]
--> ["tax", 28.9613922651765]
--> ["bath", 10181.6290712648]
--> ["size", 50.516894915354]

DROP TABLE IF EXISTS houses_linregr_bedroom, houses_linregr_bedroom_summary;
SELECT madlib.linregr_train('houses', 'houses_linregr_bedroom', 'price', 'ARRAY[1, tax, bath, size]', 'bedroom');
-- with one row the shortest solution, whose errors are 0 and whose p values nobody knows
SELECT * FROM houses_linregr_bedroom ORDER BY bedroom DESC;
--> [4, [0.0112536020318378, 41.4132554771633, 0.0225072040636757, 31.3975496688276], 1, [0, 0, 0, 0], ["inf", "inf", "inf", "inf"], null, "inf", 1, 0, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]
--> [3, [-88155.8292501601, 27.1966436294429, 41404.0293363612, 62.637521075324], 0.841699901311252, [57867.9999702625, 17.8272309154689, 43643.1321511114, 70.8506824863954], [-1.52339512849005, 1.52556747362508, 0.948695185143966, 0.884077878676067], [0.188161432894871, 0.187636685729869, 0.386340032374927, 0.417132778705789], 11722.6225642147, 9, 0, "..."]
--> [2, [-84242.0345406597, 55.4430144648696, -78966.9753675319, 225.611910021192], 0.968809546465313, [35018.9991665742, 19.5731125320686, 23036.8071292552, 49.0448678148784], [-2.40560942761235, 2.83261103077151, -3.42786111480046, 4.60011251070697], [0.250804617665239, 0.21605133377602, 0.180704400437373, 0.136272031474122], 10086.1048721726, 5, 0, "..."]
SELECT id, madlib.linregr_predict(m.coef, ARRAY[1, tax, bath, size]) AS predict, price - madlib.linregr_predict(m.coef, ARRAY[1, tax, bath, size]) AS residual
FROM houses, houses_linregr m ORDER BY id LIMIT 3;
--> [1, 53317.4426965542, -3317.44269655424]
--> [2, 109152.124955627, -24152.1249556268]
--> [3, 51459.3486308563, -28959.3486308563]
SELECT id, madlib.linregr_predict(m.coef, ARRAY[1, tax, bath, size]) AS predict
FROM houses, houses_linregr_bedroom m WHERE houses.bedroom = m.bedroom ORDER BY id LIMIT 2;
--> [1, 43223.5393423978]
--> [2, 111527.609949684]
