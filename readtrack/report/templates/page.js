(function(){"use strict";
var each=function(list,act){Array.prototype.forEach.call(list,act)};
function key(row,at){var cell=row.cells[at];if(!cell)return"";var text=cell.hasAttribute("data-key")?cell.getAttribute("data-key"):cell.textContent.trim();var number=parseFloat(text);return text!==""&&isFinite(number)&&/^[-+\d.]/.test(text)?number:text.toLowerCase()}
function compare(a,b){if(typeof a===typeof b)return a<b?-1:a>b?1:0;return typeof a==="number"?-1:1}
each(document.querySelectorAll("table[data-sort]"),function(table){
each(table.tHead.rows[0].cells,function(head,at){
if(head.hasAttribute("data-nosort"))return;
var button=document.createElement("button");button.type="button";
while(head.firstChild)button.appendChild(head.firstChild);head.appendChild(button);
button.addEventListener("click",function(){
var down=head.getAttribute("aria-sort")==="ascending";
each(table.tHead.rows[0].cells,function(other){other.removeAttribute("aria-sort")});
head.setAttribute("aria-sort",down?"descending":"ascending");
var rows=[],body=table.tBodies[0];
each(table.tBodies,function(part){each(part.rows,function(row){if(row.classList.contains("grp"))row.hidden=true;else rows.push(row)})});
rows.map(function(row,index){return{row:row,key:key(row,at),index:index}}).sort(function(a,b){return(down?-1:1)*compare(a.key,b.key)||a.index-b.index}).forEach(function(one){body.appendChild(one.row)})})})});
each(document.querySelectorAll("input[data-filter]"),function(input){
var table=document.getElementById(input.getAttribute("data-filter")),hits=document.getElementById("hits");
input.parentNode.hidden=false;
input.addEventListener("input",function(){
var words=input.value.toLowerCase().split(/\s+/).filter(Boolean),count=0;
each(table.tBodies,function(part){var shown=0;each(part.rows,function(row){if(row.classList.contains("grp"))return;
var text=row.getAttribute("data-find");var match=words.every(function(word){return text.indexOf(word)>=0});row.hidden=!match;if(match)shown++});
count+=shown;each(part.rows,function(row){if(row.classList.contains("grp")&&!table.querySelector("[aria-sort]"))row.hidden=!shown})});
hits.textContent=words.length?count+(count===1?" paper":" papers"):""})});
each(document.querySelectorAll("[data-end]"),function(box){box.scrollLeft=box.scrollWidth});
})();
